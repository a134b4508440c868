"""MAE on a ViT-B/16 with 75 % hidden, against the reference implementation."""

from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from unveil_backbones import create
from unveil_backbones.flops import block_multiply_adds, encoder_cost
from unveil_backbones.vit import VitConfig
from unveil_masking import Grid
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.mae import MAE, MAEConfig

from benchmarks._compare import Absent, Candidate, Comparison
from benchmarks._reference import MAE_URL, load_mae, missing
from benchmarks._steps import Work, candidate, difference, drawn, noise_that_keeps, scramble

__all__ = [
    "MAE_EXPLICIT",
    "MAE_FUSED",
    "OurMAE",
    "ReferenceMAE",
    "mae_difference",
    "mae_flops",
    "mae_row",
    "our_mae",
    "reference_mae",
]

_BARS = {"cpu": 1.05, "cuda": 1.3}
MAE_EXPLICIT = "reference (separate products, as with timm 0.3.2)"
MAE_FUSED = "reference (today's timm)"


def mae_row(work: Work, path: Path | None) -> Comparison:
    """Return the step against the clone at ``path``, with the attention of timm 0.3.2 and with today's."""
    ours, config, settings = our_mae(work)
    absent = missing("reference", "--mae", MAE_URL, path, "models_mae.py")
    towers: dict[str, ReferenceMAE] = {}
    if absent is None and path is not None:
        towers = {name: reference_mae(work, path, name, ours) for name in (MAE_EXPLICIT, MAE_FUSED)}
    images = work.images(config.image_size[0])
    few = work.images(config.image_size[0], work.check_batch)
    flops = work.batch * mae_flops(config, settings)
    peers: list[Candidate | Absent] = [
        candidate(name, tower, images, work, flops=flops) for name, tower in towers.items()
    ]
    return Comparison(
        title=f"MAE step, {ours.objective.encoder.spec.name} at {config.image_size[0]}, 75 % hidden, "
        f"batch {work.batch}",
        ours=candidate("ours", ours, images, work, flops=flops),
        peers=[*peers, *([absent] if absent is not None else [])],
        differences=lambda: {name: mae_difference(ours, tower, few) for name, tower in towers.items()},
        tolerance=1e-4,
        bars={MAE_EXPLICIT: _BARS[work.device.torch.type]},
    )


def our_mae(work: Work) -> tuple["OurMAE", VitConfig, MAEConfig]:
    """Return our step with scrambled weights on the device, and what it was built from."""
    torch.manual_seed(0)
    encoder = create("vit_tiny" if work.quick else "vit_b16")
    config = cast(VitConfig, encoder.config)
    settings = MAEConfig()
    objective = settings.build(BuildContext(encoder, config.image_size, lambda _: [], None))
    scramble(objective)
    return OurMAE(objective, work).to(work.device.torch), config, settings


def reference_mae(work: Work, path: Path, name: str, ours: "OurMAE | None" = None) -> "ReferenceMAE":
    """Return the clone's model of one of the two names on the device, with our weights if they are given."""
    model = load_mae(path, fused_attention=name == MAE_FUSED, norm_pix_loss=True, tiny=work.quick)
    if ours is not None:
        _copy(ours.objective, model)
    return ReferenceMAE(model).to(work.device.torch)


class OurMAE(nn.Module):
    """Our objective on fixed sample ids, masks drawn in every step."""

    def __init__(self, objective: MAE, work: Work) -> None:
        super().__init__()
        self.objective = objective
        ids = torch.arange(max(work.batch, work.check_batch), device=work.device.torch)
        self.register_buffer("ids", ids, persistent=False)

    def keep(self, images: Tensor) -> Tensor:
        """Return the patches that a step on these images keeps."""
        grid = Grid(*self.objective.encoder.grid(images.shape[-2], images.shape[-1]))
        ids = cast(Tensor, self.ids)[: len(images)]
        return self.objective.strategy.sample(grid, ids, seed=0, epoch=0).keep

    def forward(self, images: Tensor) -> Tensor:
        ids = cast(Tensor, self.ids)[: len(images)]
        return self.objective(Inputs(images, ids, torch.zeros_like(ids), None), seed=0).per_sample.mean()


class ReferenceMAE(nn.Module):
    """The clone's model; it draws its own mask."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)[0]


def mae_difference(ours: OurMAE, theirs: ReferenceMAE, images: Tensor) -> float:
    """Return how far losses and gradients are apart under the same masks."""
    rows, cols = ours.objective.encoder.grid(images.shape[-2], images.shape[-1])
    noise = noise_that_keeps(ours.keep(images), rows * cols, largest=False)
    pairs = {
        "encoder.patch_embed.proj.weight": "patch_embed.proj.weight",
        "encoder.blocks.0.attn.qkv.weight": "blocks.0.attn.qkv.weight",
        "encoder.norm.weight": "norm.weight",
        "decoder.project.weight": "decoder_embed.weight",
        "decoder.mask_token": "mask_token",
        "decoder.blocks.0.attn.qkv.weight": "decoder_blocks.0.attn.qkv.weight",
        "decoder.predict.weight": "decoder_pred.weight",
    }
    named = {f"objective.{mine}": f"model.{other}" for mine, other in pairs.items()}
    with drawn("rand", noise):
        return difference(ours, theirs, images, named)


def _copy(objective: MAE, model: nn.Module) -> None:
    """Give the clone our weights; its fixed positions stay its own and have to agree with ours."""
    renamed = {_reference_name(name): value for name, value in objective.state_dict().items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(renamed.pop(name).view_as(parameter))
    if renamed:
        raise ValueError(f"the clone has no {sorted(renamed)}; adapt the names")


def _reference_name(name: str) -> str:
    part, _, rest = name.partition(".")
    if part == "encoder":
        return rest
    for ours, theirs in (("project.", "decoder_embed."), ("predict.", "decoder_pred."), ("mask_token", "mask_token")):
        if rest.startswith(ours):
            return rest.replace(ours, theirs)
    return f"decoder_{rest}"


def mae_flops(config: VitConfig, settings: MAEConfig) -> float:
    """Return operations of a training step for one image: encoder on kept tokens, decoder on all."""
    rows, cols = (side // config.patch_size for side in config.image_size)
    num, width = rows * cols, settings.decoder_width
    kept = int(num * (1 - settings.mask_ratio))
    decoder = settings.decoder_depth * block_multiply_adds(num + 1, width)
    ends = (kept + 1) * config.width * width + (num - kept) * width * 3 * config.patch_size**2
    return 6.0 * (encoder_cost(config, num_kept=kept).multiply_adds + decoder + ends)
