"""The command line: its surface, its help, and its recipes."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from unveil_backbones import names
from unveil_pretrain.cli import main
from unveil_pretrain.commands.flip import Beginning, FlipCommand
from unveil_pretrain.commands.mim import MimCommand
from unveil_pretrain.commands.training import Place
from unveil_pretrain.config import config_to_json, first_difference
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES

PLACE = (
    "out", "train_data", "val_data", "train_list", "device", "num_workers", "read_timeout", "read_tries", "loggers",
    "micro_batch_size",
    "checkpoint_blocks", "parallel", "shard_over", "checkpoint_format", "async_checkpoints", "memory_limit",
    "compile",
)  # fmt: skip
SHARED = (
    "encoder", "image_size", "crop_scale", "mirror", "drop_path", "steps", "batch_size", "num_unique", "seed",
    "base_lr", "lr_reference_batch", "warmup_steps", "schedule", "decay_at", "decay_gamma", "weight_decay", "betas",
    "clip_norm", "max_bad_samples", "precision", "pixel_mean", "pixel_std", "validate_every", "checkpoint_every",
    "val_images", "gap_images", "val_masks", "val_mask_seed",
)  # fmt: skip
OBJECTIVE = {
    "simmim": ("mask_unit", "mask_ratio", "target_window"),
    "sparse_simmim": ("mask_ratio", "target_window", "decoder_width", "decoder_depth", "decoder_heads"),
    "beit": ("mask_ratio", "min_block", "vocab_size"),
    "splitmask": (
        "vocab_size", "decoder_width", "decoder_depth", "decoder_heads", "contrast_weight", "temperature",
        "negative_pool",
    ),
    "ijepa": (
        "num_targets", "target_area", "target_aspect", "context_area", "distance", "momentum", "predictor_width",
        "predictor_depth", "predictor_heads",
    ),
    "mae": ("mask_ratio", "normalise_target", "decoder_width", "decoder_depth", "decoder_heads"),
    "videomae": (
        "num_frames", "frame_stride", "clip_crop", "mask_ratio", "normalise_target", "decoder_width", "decoder_depth",
        "decoder_heads",
    ),
    "flip": (
        "mask_ratio", "image_reduction", "loss", "initial_scale", "initial_bias", "loss_chunk", "text", "tokenizer",
        "max_caption_characters",
        "text_length", "attend_padding", "vocabulary", "vocab_size", "tokenizer_captions", "text_masking", "text_keep",
        "text_tags", "text_threshold", "embed_dim", "reconstruction_weight", "decoder_width", "decoder_depth",
        "decoder_heads", "negative_pool",
    ),
}  # fmt: skip
RECIPES = {**MIM_RECIPES, **FLIP_RECIPES}


def flags(value):
    found = []
    for field in fields(value):
        inner = getattr(value, field.name)
        found.extend(flags(inner) if is_dataclass(inner) else [field.name])
    return tuple(found)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_settings_are_these_and_no_others(recipe):
    """A new flag is a decision: it is made here too."""
    config = RECIPES[recipe]()
    assert flags(config) == SHARED + OBJECTIVE[config.objective.name]


def test_the_places_are_these_and_no_others():
    assert tuple(field.name for field in fields(Place)) == PLACE
    assert tuple(field.name for field in fields(MimCommand)) == ("place", "config")
    assert tuple(field.name for field in fields(FlipCommand)) == ("place", "beginning", "config")
    assert tuple(field.name for field in fields(Beginning)) == ("initial", "stage")


@pytest.mark.parametrize(("command", "recipe"), [("mim", "tiny_simmim"), ("mim", "tiny_mae"), ("flip", "tiny_flip")])
def test_help_lists_every_setting_with_its_meaning(capsys, command, recipe):
    with pytest.raises(SystemExit) as caught:
        main([command, recipe, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for name in (*PLACE, *SHARED, *OBJECTIVE[RECIPES[recipe]().objective.name]):
        assert f"--{name.replace('_', '-')}" in text or f"--no-{name.replace('_', '-')}" in text
    words = " ".join(text.replace("│", " ").split())
    assert "a seeded subset; 0 uses all" in words
    assert "Largest gradient norm" in words


@pytest.mark.parametrize("arguments", [[], ["--help"], ["mim", "--help"]])
def test_usage(capsys, arguments):
    main(arguments)
    assert "pretrain mim RECIPE" in capsys.readouterr().out


def test_ls_shows_the_cells_of_the_study_as_one_line_per_size(capsys):
    main(["ls"])
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == len(RECIPES) - 75 + 5 - 48 + 6
    assert any("flip_l16_{laion400m,laion2b}_{2.56b,5.12b,12.8b,25.6b} " in line for line in listed)
    assert any("simmim_swinv2_b_{in1k_10,in1k_20,in1k_50,in1k_100,in22k}_{125k,250k,500k} " in line for line in listed)
    with pytest.raises(SystemExit):
        main(["mim", "simmim_swinv2_b_in1k_50"])
    message = capsys.readouterr().err
    assert "there is no recipe 'simmim_swinv2_b_in1k_50' (did you mean simmim_swinv2_b_in1k_50_" in message
    assert message.count("simmim_swinv2_b_") == 4


def test_ls_names_every_recipe(capsys):
    main(["ls", "--all"])
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in listed] == [
        *(["mim", name] for name in MIM_RECIPES),
        *(["flip", name] for name in FLIP_RECIPES),
    ]


def test_flags_override_the_recipe_and_are_recorded(tmp_path, shards, capsys):
    out = tmp_path / "run"
    main([
        "mim", "tiny_mae", "--out", str(out), "--train-data", shards[0], "--val-data", shards[1], "--device", "cpu",
        "--steps", "2", "--batch-size", "3", "--image-size", "32", "64", "--mask-ratio", "0.5", "--decoder-width", "36",
        "--no-normalise-target", "--num-unique", "9", "--betas", "0.8", "0.9",
    ])  # fmt: skip
    record = json.loads((out / "run.json").read_text())
    config = record["identity"]["config"]
    assert (config["steps"], config["batch_size"], config["num_unique"]) == (2, 3, 9)
    assert (config["image_size"], config["betas"]) == ([32, 64], [0.8, 0.9])
    assert config["objective"]["mask_ratio"] == 0.5
    assert config["objective"]["normalise_target"] is False
    assert config["clip_norm"] == 5.0
    assert record["command"][:3] == ["pretrain", "mim", "tiny_mae"]
    assert record["train_data"] == shards[0]
    captured = capsys.readouterr()
    assert captured.out.strip() == str(out / "checkpoints" / "step_00000002")
    assert "effective batch 3" in captured.err
    assert "2/2" in captured.err  # the progress bar


@pytest.mark.parametrize(("rank", "printed"), [("0", "run/last\n"), ("1", "")])
def test_one_process_of_several_prints_the_checkpoint(monkeypatch, tmp_path, capsys, rank, printed):
    """Of all machines: `ckpt=$(torchrun …)` is one path."""
    for name, value in (("RANK", rank), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("unveil_pretrain.commands.training.train", lambda config, **place: Path("run/last"))
    main(["mim", "tiny_mae", "--out", str(tmp_path / "run"), "--train-data", "a.tar", "--val-data", "b.tar"])
    assert capsys.readouterr().out == printed


def test_scenes_dispatches_to_the_generator(monkeypatch, tmp_path, capsys):
    built = []

    def build(config):
        built.append(config)
        return config.out

    monkeypatch.setattr("unveil_pretrain.commands.scenes.build_scenes", build)
    main(["scenes", "--out", str(tmp_path / "d"), "--num-train", "7"])
    assert built[0].num_train == 7
    assert capsys.readouterr().out.strip() == str(tmp_path / "d")


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_are_complete_and_can_be_written_down(recipe):
    config = RECIPES[recipe]()
    assert config.encoder in names()
    written = json.loads(json.dumps(config_to_json(config)))
    assert first_difference(written, config_to_json(config)) is None
    assert RECIPES[recipe].__doc__


def test_the_first_difference_is_named():
    here = {"a": 1, "b": {"c": [1, 2], "d": 0}, "e": 1}
    assert first_difference(here, here) is None
    assert first_difference({**here, "e": 2}, here) == "e is 2 now and was 1"
    assert first_difference({**here, "b": {"c": [1, 3], "d": 1}}, here) == "b.c is [1, 3] now and was [1, 2]"
    assert first_difference(here, {**here, "new": None}) == "new is None now and was None"
