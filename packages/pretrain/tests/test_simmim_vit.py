"""SimMIM on a ViT: mask tokens stand in for patch embeddings before positions are added, as in the paper's code.

The reference is written here from the formulas (SimMIM, arXiv:2111.09886, section 3; microsoft/SimMIM, MIT) on timm's
own Vision Transformer: embed, replace, add positions, blocks, norm, a linear layer, pixel shuffle, masked L1.
"""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from timm.models import create_model
from timm.models.vision_transformer import VisionTransformer
from unveil_backbones import create
from unveil_backbones.position import sin_cos_position
from unveil_masking import Grid
from unveil_pretrain.mask_tokens import hide_tokens
from unveil_pretrain.objectives.base import BuildContext, Inputs
from unveil_pretrain.objectives.simmim import SimMIMConfig

SIDE, PATCH = 64, 8


def inputs(num=3, side=SIDE):
    generator = torch.Generator().manual_seed(0)
    slopes = torch.linspace(-1, 1, side)[:, None] * torch.linspace(0, 2, side)
    images = torch.randn(num, 3, side, side, generator=generator) * 0.3 + slopes
    return Inputs(images, torch.arange(num) + 5, torch.zeros(num, dtype=torch.int64), None)


def build(config, encoder="vit_tiny", side=SIDE):
    torch.manual_seed(0)
    made = create(encoder, image_size=(side, side))
    context = BuildContext(encoder=made, image_size=(side, side), captions=lambda _: [], tokenizer_json=None)
    objective = config.build(context).eval()
    with torch.no_grad():  # away from zeros that hide mistakes
        for parameter in objective.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return objective


def timm_twin(encoder):
    config = encoder.config
    twin = VisionTransformer(
        img_size=config.image_size, patch_size=PATCH, num_classes=0, embed_dim=config.width, depth=config.depth,
        num_heads=config.num_heads,
    )  # fmt: skip
    rows, cols = encoder.grid(*config.image_size)
    position = sin_cos_position(rows, cols, config.width, base_rows=rows, base_cols=cols)
    table = torch.cat([torch.zeros(1, config.width), position])[None]
    twin.load_state_dict({**encoder.state_dict(), "pos_embed": table})
    return twin.eval()


def normalised(images, window):
    """Each pixel minus the mean of the window around it, over its unbiased deviation; border windows are cut."""
    maps, half = images.double(), window // 2

    def mean(values):
        return F.avg_pool2d(values, window, stride=1, padding=half, count_include_pad=False)

    count = F.avg_pool2d(torch.ones_like(maps), window, 1, half, count_include_pad=True) * window**2
    variance = (mean(maps**2) - mean(maps) ** 2) * count / (count - 1)
    return ((maps - mean(maps)) / (variance.clamp(min=0) + 1e-6).sqrt()).float()


def reference_loss(objective, batch, seed):
    """The batch loss by the formulas of the paper's code, from timm's forward pass."""
    twin, encoder = timm_twin(objective.encoder), objective.encoder
    grid = Grid(*encoder.grid(SIDE, SIDE))
    partition = objective.strategy.sample(grid, batch.sample_ids, seed=seed, epoch=batch.epochs)
    weight = partition.mask.unsqueeze(-1).float()
    tokens = twin.patch_embed(batch.images)
    tokens = tokens * (1 - weight) + objective.mask_token * weight
    tokens = torch.cat([twin.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + twin.pos_embed
    encoded = twin.norm(twin.blocks(tokens))[:, 1:]
    maps = encoded.transpose(1, 2).reshape(len(tokens), -1, grid.rows, grid.cols)
    prediction = F.pixel_shuffle(F.conv2d(maps, objective.head.weight, objective.head.bias), PATCH)
    mask = partition.mask.view(-1, grid.rows, grid.cols).repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    mask = mask.unsqueeze(1).float()
    target = normalised(batch.images, objective.target_window) if objective.target_window else batch.images
    error = F.l1_loss(target, prediction, reduction="none")
    return (error * mask).sum() / (mask.sum() + 1e-5) / 3


@pytest.mark.parametrize("window", [0, 47])
@pytest.mark.parametrize("optimisations", [(), ("running_sums", "hidden_cells")])
def test_loss_is_the_references_on_timms_model(window, optimisations):
    objective = build(SimMIMConfig(mask_unit=16, target_window=window))
    objective.set_optimisations(optimisations)
    batch = inputs()
    with torch.no_grad():
        expected = reference_loss(objective, batch, seed=3)
        found = objective(batch, seed=3).per_sample.mean()
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=0)


def test_a_token_put_in_after_the_positions_is_another_loss():
    """What the fill is for: without positions all hidden patches look the same."""
    objective = build(SimMIMConfig(mask_unit=16, target_window=0))
    batch = inputs()
    with torch.no_grad():
        right = reference_loss(objective, batch, seed=3)
        objective.encoder.positions = lambda grid: None
        wrong = objective(batch, seed=3).per_sample.mean()
    assert abs(right - wrong) > 1e-4


@pytest.mark.parametrize(
    "name", ["vit_tiny", "timm:test_vit", "timm:eva02_tiny_patch14_224", "timm:vit_tiny_patch16_dinov3_qkvb"]
)
def test_filled_tokens_are_where_then_add(name):
    """embed() is patches plus positions, and hiding happens between the two."""
    patch = 14 if "14" in name else 8 if name == "vit_tiny" else 16
    encoder = create(name, image_size=(4 * patch, 4 * patch)).eval()
    images = torch.randn(2, 3, 3 * patch, 5 * patch)
    grid = encoder.grid(*images.shape[-2:])
    patches = encoder.patch_embed(images).flatten(1, -2)
    positions = encoder.positions(grid)
    table = torch.zeros(grid[0] * grid[1], encoder.embed_width) if positions is None else positions
    torch.testing.assert_close(encoder.embed(images), patches + table)
    hidden = torch.rand(2, grid[0] * grid[1]) < 0.5
    token = torch.randn(encoder.embed_width)
    expected = torch.where(hidden[:, :, None], token, patches) + table
    torch.testing.assert_close(hide_tokens(encoder, encoder.embed(images), hidden, token, grid), expected)


def test_swin_has_no_positions_and_keeps_its_tokens():
    encoder = create("swinv2_tiny", image_size=(32, 32))
    assert encoder.positions((8, 8)) is None
    tokens, hidden = torch.randn(1, 64, 32), torch.zeros(1, 64, dtype=torch.bool)
    hidden[0, 5] = True
    found = hide_tokens(encoder, tokens, hidden, torch.zeros(32), (8, 8))
    assert not found[0, 5].any()
    assert torch.equal(found[0, 6:], tokens[0, 6:])


def test_learned_positions_learn_from_hidden_patches_too():
    objective = build(SimMIMConfig(mask_unit=16, target_window=0), "timm:test_vit")
    objective(inputs(), seed=0).per_sample.mean().backward()
    assert (objective.encoder.pos_embed.grad[0, 1:].abs().sum(-1) > 0).all()
    assert objective.mask_token.grad.abs().sum() > 0


def test_hidden_pixels_do_not_reach_the_encoder():
    objective = build(SimMIMConfig(mask_unit=16, target_window=0))
    batch = inputs()
    partition = objective.strategy.sample(Grid(8, 8), batch.sample_ids, seed=3, epoch=batch.epochs)
    hidden = partition.mask.view(-1, 1, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)
    other = replace(batch, images=torch.where(hidden, torch.randn_like(batch.images), batch.images))
    seen = []
    handle = objective.encoder.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        objective(batch, seed=3)
        objective(other, seed=3)
    handle.remove()
    assert torch.equal(seen[0], seen[1])


def test_position_tables_of_a_timm_model_are_its_own():
    encoder = create("timm:test_vit", image_size=(64, 64))
    twin = create_model("test_vit", num_classes=0, img_size=64, dynamic_img_size=True)
    twin.load_state_dict(encoder.state_dict(), strict=False)
    expected = twin._pos_embed(torch.zeros(1, 3, 5, twin.embed_dim))[0, 1:]
    torch.testing.assert_close(encoder.positions((3, 5)), expected)
