"""Fixed sine-cosine positions against hand-computed values and the formula of the released MAE code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.layers.pos_embed import resample_abs_pos_embed
from unveil_backbones.errors import ConfigError
from unveil_backbones.position import resampled_position, sin_cos_position


def mae_reference(rows: int, cols: int, width: int) -> np.ndarray:
    """The published formula: outer products of coordinates and frequencies, columns ("w goes first") then rows."""
    grid = np.stack(np.meshgrid(np.arange(cols, dtype=np.float64), np.arange(rows, dtype=np.float64)))
    omega = 1.0 / 10000 ** (np.arange(width // 4, dtype=np.float64) / (width / 4.0))
    halves = []
    for coordinate in grid:
        angle = np.outer(coordinate.reshape(-1), omega)
        halves.append(np.concatenate([np.sin(angle), np.cos(angle)], axis=1))
    return np.concatenate(halves, axis=1)


def on_base(rows: int, cols: int, width: int) -> torch.Tensor:
    return sin_cos_position(rows, cols, width, base_rows=rows, base_cols=cols)


def test_hand_computed_values():
    # Width 4 has one frequency, 1: [sin x, cos x, sin y, cos y] for x the column and y the row.
    sine, cosine = 0.8414709848, 0.5403023059
    expected = [[0, 1, 0, 1], [sine, cosine, 0, 1], [0, 1, sine, cosine], [sine, cosine, sine, cosine]]
    torch.testing.assert_close(on_base(2, 2, 4), torch.tensor(expected))


@pytest.mark.parametrize(("rows", "cols"), [(8, 8), (14, 14), (3, 7), (1, 5)])
def test_equals_the_released_formula(rows, cols):
    expected = torch.from_numpy(mae_reference(rows, cols, 32)).float()
    torch.testing.assert_close(on_base(rows, cols, 32), expected, atol=1e-7, rtol=0)


def test_other_grids_stretch_the_coordinates():
    # Four cells over two: centres lie at -0.25, 0.25, 0.75 and 1.25 of the base cells.
    stretched = sin_cos_position(1, 4, 4, base_rows=1, base_cols=2)
    torch.testing.assert_close(stretched[:, 0], torch.tensor([-0.25, 0.25, 0.75, 1.25]).sin())
    torch.testing.assert_close(stretched[:, 2], torch.zeros(4))


def test_stretching_is_what_resampling_approximates():
    base = on_base(8, 8, 64).reshape(1, 8, 8, 64).permute(0, 3, 1, 2)
    resampled = torch.nn.functional.interpolate(base, size=(16, 16), mode="bicubic", align_corners=False)
    stretched = sin_cos_position(16, 16, 64, base_rows=8, base_cols=8).reshape(16, 16, 64).permute(2, 0, 1)
    inner = (slice(None), slice(4, 12), slice(4, 12))  # bicubic repeats the border, the formula goes on
    assert (resampled[0][inner] - stretched[inner]).abs().max() < 0.05


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), base=st.integers(1, 9))
def test_transposing_the_grid_swaps_the_halves(rows, cols, base):
    one = sin_cos_position(rows, cols, 8, base_rows=base, base_cols=base).reshape(rows, cols, 8)
    other = sin_cos_position(cols, rows, 8, base_rows=base, base_cols=base).reshape(cols, rows, 8)
    torch.testing.assert_close(one, other.transpose(0, 1)[..., [4, 5, 6, 7, 0, 1, 2, 3]])


@given(rows=st.integers(1, 12), cols=st.integers(1, 12))
def test_positions_of_a_grid_differ(rows, cols):
    position = on_base(rows, cols, 16)
    distance = torch.cdist(position, position) + torch.eye(rows * cols) * 10
    assert distance.min() > 0.01


def test_width_has_to_hold_sines_and_cosines_of_both_axes():
    with pytest.raises(ConfigError, match=r"width 30; .* multiple of 4; choose 32"):
        on_base(2, 2, 30)


def cubic_weights(before: int, after: int) -> np.ndarray:
    """Cubic convolution (a = -1/2) between cell centres, stretched when it shrinks, cut and normalised at borders."""
    step = before / after
    stretch = max(step, 1.0)
    centre, cell = (np.arange(after)[:, None] + 0.5) * step, np.arange(before)[None, :] + 0.5
    distance = np.abs(cell - centre) / stretch
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    weights = np.where(distance < 1, near, np.where(distance < 2, far, 0.0))
    return weights / weights.sum(axis=1, keepdims=True)


@given(base=st.tuples(st.integers(1, 9), st.integers(1, 9)), grid=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_learned_table_is_resampled_by_the_formula(base, grid):
    table = torch.randn(base[0] * base[1], 6)
    maps = table.double().numpy().reshape(*base, 6)
    rows, cols = (cubic_weights(before, after) for before, after in zip(base, grid, strict=True))
    expected = torch.from_numpy(np.einsum("ir,jc,rcd->ijd", rows, cols, maps).reshape(-1, 6)).float()
    torch.testing.assert_close(resampled_position(table, base, grid), expected, atol=1e-5, rtol=0)


@given(base=st.tuples(st.integers(1, 9), st.integers(1, 9)), grid=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_a_learned_table_is_resampled_as_timm_does(base, grid):
    table = torch.randn(base[0] * base[1], 6)
    prefixed = torch.cat([torch.zeros(2, 6), table])[None]
    expected = resample_abs_pos_embed(prefixed, list(grid), list(base), num_prefix_tokens=2)[0, 2:]
    torch.testing.assert_close(resampled_position(table, base, grid), expected, atol=1e-6, rtol=0)


def test_a_learned_table_of_rows_and_columns_is_resampled_axis_by_axis():
    """A plane stays a plane, and no axis is taken for the other."""
    rows, cols = torch.meshgrid(torch.arange(4.0), torch.arange(10.0), indexing="ij")
    table = torch.stack([rows, cols], dim=-1).reshape(40, 2)
    resampled = resampled_position(table, (4, 10), (8, 10)).unflatten(0, (8, 10))
    torch.testing.assert_close(resampled[..., 1], cols[:1].expand(8, 10), atol=1e-5, rtol=0)
    # Twice the rows: centres at -0.25, 0.25, ... rows of the table; bicubic is exact away from the border.
    torch.testing.assert_close(resampled[3:5, 0, 0], torch.tensor([1.25, 1.75]), atol=1e-5, rtol=0)


def test_its_own_grid_gets_the_table_itself_and_a_foreign_count_is_refused():
    table = torch.randn(12, 4)
    assert resampled_position(table, (3, 4), (3, 4)) is table
    assert resampled_position(table, (3, 4), (4, 3)).shape == (12, 4)
    with pytest.raises(ConfigError, match="a table of 12 positions for a grid of 3 x 5; it needs 15"):
        resampled_position(table, (3, 5), (3, 4))
