"""The image step of FLIP on a ViT-B/16 at several ratios, against patch dropout of timm and open_clip."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn
from unveil_backbones import Encoder
from unveil_backbones.flops import block_multiply_adds, encoder_cost
from unveil_backbones.vit import VitConfig, VitEncoder
from unveil_backbones.vit_presets import VIT_PRESETS
from unveil_masking import Grid, RandomMask

from benchmarks._compare import Absent, Candidate, Comparison
from benchmarks._steps import Work, candidate, difference, drawn, noise_that_keeps, scramble

__all__ = ["RATIOS", "flip_rows", "ideal_speedup", "ideal_title", "own_speedup_row", "work_title"]

RATIOS = (0.5, 0.75)
_TOLERANCE = 1e-4
_BARS = {"cpu": 1.3, "cuda": 1.2}


def flip_rows(work: Work, ratios: Sequence[float] = RATIOS) -> Iterator[Comparison]:
    """Yield the step at each ratio against timm and against open_clip, each with the shape of the peer's model."""
    for ratio in ratios:
        yield _row(work, ratio, _timm_shape(work), "timm")
        yield _row(work, ratio, _clip_shape(work), "open_clip")


def own_speedup_row(work: Work, ratio: float) -> Comparison:
    """Return our step with dropped patches against our step with all of them."""
    config = _timm_shape(work)
    masked, whole = (_Ours(_encoder(config, work), kept, work) for kept in (ratio, 0.0))
    images, few = work.images(config.image_size[0]), work.images(config.image_size[0], work.check_batch)
    name = "all patches"
    return Comparison(
        title=f"FLIP image step, {ratio:.0%} dropped, over our own step with all patches, batch {work.batch}",
        ours=candidate("ours", masked, images, work, flops=_flops(config, ratio, work)),
        peers=[candidate(name, whole, images, work, flops=_flops(config, 0.0, work))],
        # The same module at ratio 0 has to give what the encoder gives for whole images.
        differences=lambda: {name: _apart_from_plain(whole, few)},
        tolerance=_TOLERANCE,
        bars={name: ideal_share(work) * ideal_speedup(config, ratio)},
    )


def ideal_share(work: Work) -> float:
    """Return the share of the ideal speed-up that has to be reached."""
    return 0.95 if work.device.torch.type == "cpu" else 0.9


def ideal_speedup(config: VitConfig, ratio: float) -> float:
    """Return multiply-adds of the whole step over those of the masked one."""
    return encoder_cost(config).multiply_adds / _masked_cost(config, ratio)


def ideal_title(work: Work, ratio: float, reached: float) -> str:
    """Return the line of the report about the ideal."""
    ideal = ideal_speedup(_timm_shape(work), ratio)
    return f"own speed-up at {ratio:.0%}: {reached:.2f} of an ideal {ideal:.2f} = {reached / ideal:.0%}"


def work_title(work: Work, ratio: float) -> str:
    """Return the line of the report about the products that a peer computes and we leave out."""
    config = _timm_shape(work)
    rows, cols = (side // config.patch_size for side in config.image_size)
    tokens = int(rows * cols * (1 - ratio)) + 1
    width, patch = config.width, 3 * config.patch_size**2 * config.width
    block = block_multiply_adds(tokens, width, mlp_ratio=config.mlp_ratio)
    last = block_multiply_adds(tokens, width, mlp_ratio=config.mlp_ratio, num_rows=1)
    theirs = rows * cols * patch + config.depth * block
    ours = (tokens - 1) * patch + (config.depth - 1) * block + last
    return (
        f"at {ratio:.0%} a peer embeds all patches and finishes the last block: {theirs / ours:.2f} times our products"
    )


class _Ours(nn.Module):
    """Mask, embed the kept patches, encode, pool: a linear read-out stands for the loss."""

    def __init__(self, encoder: Encoder, ratio: float, work: Work) -> None:
        super().__init__()
        self.encoder = encoder
        self.strategy = RandomMask(ratio)
        ids = torch.arange(max(work.batch, work.check_batch), device=work.device.torch)
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("read_out", _read_out(encoder.width, work), persistent=False)

    def keep(self, images: Tensor) -> Tensor:
        """Return the patches that a step on these images keeps."""
        grid = Grid(*self.encoder.grid(images.shape[-2], images.shape[-1]))
        return self.strategy.sample(grid, cast(Tensor, self.ids)[: len(images)], seed=0, epoch=0).keep

    def forward(self, images: Tensor) -> Tensor:
        grid = self.encoder.grid(images.shape[-2], images.shape[-1])
        keep = self.keep(images) if self.strategy.ratio else None
        pooled = self.encoder.encode_pooled(self.encoder.embed(images, keep), grid)
        return (pooled.float() @ cast(Tensor, self.read_out)).square().mean()


class _Peer(nn.Module):
    """A peer's tower, from images to pooled vectors, and the same read-out."""

    def __init__(self, tower: nn.Module, width: int, work: Work) -> None:
        super().__init__()
        self.tower = tower
        self.register_buffer("read_out", _read_out(width, work), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (self.tower(images).float() @ cast(Tensor, self.read_out)).square().mean()


def _row(work: Work, ratio: float, config: VitConfig, name: str) -> Comparison:
    ours = _Ours(_encoder(config, work), ratio, work)
    title = f"FLIP image step, {ratio:.0%} dropped, ViT of width {config.width}, batch {work.batch}, against {name}"
    images = work.images(config.image_size[0])
    flops = _flops(config, ratio, work)
    tower = _timm(ours, config, ratio) if name == "timm" else _open_clip(ours, config, ratio)
    if isinstance(tower, Absent):
        peers: list[Candidate | Absent] = [tower]
        return Comparison(
            title=title,
            ours=candidate("ours", ours, images, work, flops=flops),
            peers=peers,
            differences=dict,
            tolerance=_TOLERANCE,
        )
    peer = _Peer(tower, config.width, work).to(work.device.torch).train()
    few = work.images(config.image_size[0], work.check_batch)
    return Comparison(
        title=title,
        ours=candidate("ours", ours, images, work, flops=flops),
        peers=[candidate(name, peer, images, work, flops=flops)],
        differences=lambda: {name: _difference(ours, peer, few, name)},
        tolerance=_TOLERANCE,
        bars={name: _BARS[work.device.torch.type]},
    )


def _difference(ours: _Ours, peer: nn.Module, images: Tensor, name: str) -> float:
    """Compare on the same keep set: the peer's own dropout runs, on noise that selects our patches."""
    rows, cols = ours.encoder.grid(images.shape[-2], images.shape[-1])
    noise = noise_that_keeps(ours.keep(images), rows * cols, largest=name == "open_clip")
    last = len(ours.encoder.block_names()) - 1
    if name == "timm":
        pairs = {"patch_embed.proj.weight": "patch_embed.proj.weight", "pos_embed": "pos_embed"}
        pairs |= {weight: weight for i in (0, last) for weight in (f"blocks.{i}.attn.qkv.weight",)}
    else:
        pairs = {"patch_embed.proj.weight": "conv1.weight", "pos_embed": "positional_embedding"}
        pairs |= {f"blocks.{i}.attn.qkv.weight": f"transformer.resblocks.{i}.attn.in_proj_weight" for i in (0, last)}
    named = {f"encoder.{mine}": f"tower.{theirs}" for mine, theirs in pairs.items()}
    with drawn("randn", noise):
        return difference(ours, peer, images, named)


def _apart_from_plain(whole: _Ours, images: Tensor) -> float:
    with torch.no_grad():
        plain = whole.encoder(images)
        num = whole.encoder.grid(*images.shape[-2:])[0] * whole.encoder.grid(*images.shape[-2:])[1]
        every = torch.arange(num, device=images.device).expand(len(images), num)
        tokens = whole.encoder.embed(images, every)
        kept = whole.encoder.encode_pooled(tokens, whole.encoder.grid(*images.shape[-2:]))
    return (plain - kept).abs().max().item()


def _timm_shape(work: Work) -> VitConfig:
    """Timm's ViT: learned positions, one for the class token too; the class token is the output."""
    base = VIT_PRESETS["vit_tiny" if work.quick else "vit_b16"]
    return replace(base, position="learned", class_position=True, pooling="cls")


def _clip_shape(work: Work) -> VitConfig:
    """CLIP's: no bias in the patch projection, a norm before the blocks."""
    return replace(_timm_shape(work), pre_norm=True, patch_bias=False, norm_epsilon=1e-5)


def _encoder(config: VitConfig, work: Work) -> VitEncoder:
    torch.manual_seed(0)
    encoder = VitEncoder(config)
    scramble(encoder)
    return encoder.to(work.device.torch).train()


def _timm(ours: _Ours, config: VitConfig, ratio: float) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    tower = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        num_classes=0,
        global_pool="token",
        embed_dim=config.width,
        depth=config.depth,
        num_heads=config.num_heads,
        patch_drop_rate=ratio,
    )
    tower.load_state_dict(ours.encoder.state_dict())
    return tower


def _open_clip(ours: _Ours, config: VitConfig, ratio: float) -> nn.Module | Absent:
    try:
        from open_clip.transformer import VisionTransformer
    except ImportError as error:
        return Absent(name="open_clip", reason=f"{error}; pip install open_clip_torch")
    tower = VisionTransformer(
        image_size=config.image_size[0],
        patch_size=config.patch_size,
        width=config.width,
        layers=config.depth,
        heads=config.num_heads,
        mlp_ratio=config.mlp_ratio,
        patch_dropout=ratio,
        output_dim=config.width,
    )
    # The projection behind the tower belongs to the pair; both sides stop before it.
    tower.proj = None
    state = {_clip_name(name): value for name, value in ours.encoder.state_dict().items()}
    for name, parameter in tower.named_parameters():
        with torch.no_grad():
            parameter.copy_(state.pop(name).view_as(parameter))
    if state:
        raise ValueError(f"open_clip's tower has no {sorted(state)}; adapt the names")
    return tower


def _clip_name(name: str) -> str:
    """Our (timm's) name of a weight as open_clip calls it."""
    for ours, theirs in (
        ("cls_token", "class_embedding"),
        ("pos_embed", "positional_embedding"),
        ("patch_embed.proj.", "conv1."),
        ("norm_pre.", "ln_pre."),
        ("blocks.", "transformer.resblocks."),
        (".attn.qkv.", ".attn.in_proj_"),
        (".attn.proj.", ".attn.out_proj."),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".mlp.fc1.", ".mlp.c_fc."),
        (".mlp.fc2.", ".mlp.c_proj."),
    ):
        name = name.replace(ours, theirs)
    return name.replace("norm.", "ln_post.") if name.startswith("norm.") else name


def _read_out(width: int, work: Work) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(width, 16, generator=generator).to(work.device.torch)


def _masked_cost(config: VitConfig, ratio: float) -> int:
    rows, cols = (side // config.patch_size for side in config.image_size)
    return encoder_cost(config, num_kept=int(rows * cols * (1 - ratio))).multiply_adds


def _flops(config: VitConfig, ratio: float, work: Work) -> float:
    return work.batch * 6.0 * _masked_cost(config, ratio)
