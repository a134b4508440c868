"""Scores of a finished pair: views that cover every patch, the losses of validation, and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unveil_backbones import ImageTextPair, create, create_text
from unveil_masking import Grid, RandomMask
from unveil_pretrain.cli import main
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.flip_scores import score_pair
from unveil_pretrain.loop import train
from unveil_pretrain.patch_views import complementary_keeps, vectors_of_view

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory, flip_config, shards):
    out = tmp_path_factory.mktemp("flip") / "run"
    train(flip_config, out=out, train_data=shards[0], val_data=shards[1], log=lambda line: None, progress=False)
    return out


@given(st.integers(1, 40), st.data())
def test_complementary_views_show_every_patch(num, data):
    kept = data.draw(st.integers(1, num))
    keeps = complementary_keeps(torch.arange(3), num, kept, seed=5)
    assert keeps.shape == (-(-num // kept), 3, kept)
    for image in range(3):
        views = [set(keep[image].tolist()) for keep in keeps]
        assert set.union(*views) == set(range(num))
        if num % kept == 0:
            assert sum(len(view) for view in views) == num  # complementary: no patch twice
    assert (keeps.diff(dim=2) > 0).all()


@pytest.mark.parametrize(("ratio", "sides"), [(0.5, (4, 4)), (0.75, (4, 6)), (0.6, (3, 5))])
def test_the_first_view_is_the_mask_of_validation(ratio, sides):
    grid, ids = Grid(*sides), torch.arange(7) * 1001
    partition = RandomMask(ratio).sample(grid, ids, seed=9, epoch=0)
    keeps = complementary_keeps(ids, grid.num, grid.num - partition.num_hidden, seed=9)
    assert torch.equal(keeps[0], partition.keep)


def test_a_view_of_everything_is_the_whole_image():
    torch.manual_seed(0)
    encoder = create("vit_tiny", image_size=(32, 32)).eval()
    pair = ImageTextPair(encoder, create_text("text_tiny", vocab_size=50, length=8), 16).eval()
    images = torch.randn(3, 3, 32, 32)
    rows, cols = encoder.grid(32, 32)
    with torch.no_grad():
        whole = pair.encode_image(images)
        every = vectors_of_view(pair, images, complementary_keeps(torch.arange(3), rows * cols, rows * cols, seed=0))
        halves = complementary_keeps(torch.arange(3), rows * cols, rows * cols // 2, seed=0)
        mean = vectors_of_view(pair, images, halves)
        parts = [vectors_of_view(pair, images, halves[view : view + 1]) for view in (0, 1)]
    torch.testing.assert_close(every, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, torch.nn.functional.normalize(parts[0] + parts[1], dim=1), atol=1e-5, rtol=0)


def test_a_view_of_nothing_is_refused():
    with pytest.raises(ConfigError, match="keeps 0 of 4"):
        complementary_keeps(torch.arange(2), 4, 0, seed=0)


def test_losses_are_those_of_validation(trained, shards):
    last = json.loads((trained / "val.jsonl").read_text().splitlines()[-1])
    scores = score_pair(trained, shards[1], device=CPU, batch_size=3)
    # Ten pairs in pools of four: both leave the last two out.
    assert scores.losses["masked"].mean() == pytest.approx(last["loss"], abs=1e-5)
    assert scores.losses["full"].mean() == pytest.approx(last["unmasked_loss"], abs=1e-5)
    assert (scores.pool, scores.mask_ratio, scores.num_images) == (4, 0.5, 10)


def test_losses_of_pairs_trained_by_sigmoid_are_sigmoid_losses(tmp_path, flip_config, shards):
    config = replace(flip_config, objective=replace(flip_config.objective, loss="sigmoid", initial_bias=-3.0))
    out = tmp_path / "run"
    train(config, out=out, train_data=shards[0], val_data=shards[1], log=lambda line: None, progress=False)
    last = json.loads((out / "val.jsonl").read_text().splitlines()[-1])
    scores = score_pair(out, shards[1], device=CPU, batch_size=5)
    assert scores.losses["masked"].mean() == pytest.approx(last["loss"], abs=1e-5)
    assert scores.losses["full"].mean() == pytest.approx(last["unmasked_loss"], abs=1e-5)


def test_scores_do_not_depend_on_the_batch(trained, shards):
    small, large = (score_pair(trained, shards[1], device=CPU, batch_size=size) for size in (1, 10))
    for view in small.recalls:
        for name, values in small.recalls[view].items():
            assert np.array_equal(values, large.recalls[view][name])
        np.testing.assert_allclose(small.losses[view], large.losses[view], atol=1e-4)


def test_a_folder_of_shards_is_the_shards_in_it(trained, shards, tmp_path):
    (tmp_path / "val.tar").symlink_to(shards[1])
    named, folder = (score_pair(trained, place, device=CPU, batch_size=10) for place in (shards[1], str(tmp_path)))
    assert np.array_equal(named.losses["full"], folder.losses["full"])


def test_the_command_prints_a_table_or_json(trained, shards, capsys):
    main(["flip-eval", "--ckpt", str(trained), "--data", shards[1], "--views", "full,ensemble", "--device", "cpu"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["view", "full", "ensemble"]
    assert "10 images" in lines[3]
    main(["flip-eval", "--ckpt", str(trained), "--data", shards[1], "--json", "--mask-ratio", "0.25", "--pool", "5"])
    record = json.loads(capsys.readouterr().out)
    assert (record["mask_ratio"], record["pool"], set(record["views"])) == (0.25, 5, {"full", "masked", "ensemble"})
    assert record["views"]["full"]["text_recall_10"] == {"value": 1.0, "standard_error": 0.0, "num_images": 10}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--views", "half"], "half"),
        (["--mask-ratio", "1"], "mask_ratio is 1.0"),
        (["--pool", "11"], "the pool is 11 pairs, the data has 10"),
        (["--batch-size", "0"], "batch_size is 0"),
    ],
)
def test_impossible_flags_are_refused(trained, shards, capsys, flags, message):
    with pytest.raises(SystemExit) as caught:
        main(["flip-eval", "--ckpt", str(trained), "--data", shards[1], *flags])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_without_text_is_named(tmp_path, shards, mae_config, capsys):
    train(
        mae_config, out=tmp_path / "mae", train_data=shards[0], val_data=shards[1], log=lambda line: None,
        progress=False,
    )  # fmt: skip
    with pytest.raises(SystemExit) as caught:
        main(["flip-eval", "--ckpt", str(tmp_path / "mae"), "--data", shards[1]])
    assert caught.value.code == 2
    assert "has no text tower" in capsys.readouterr().err
