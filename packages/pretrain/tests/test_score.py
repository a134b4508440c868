"""`pretrain score`: over its own validation images a checkpoint has the loss that its manifest records, to the bit."""

import json
from dataclasses import replace
from pathlib import Path

import polars
import pytest
import torch
from unveil_backbones import (
    ImageTextPair,
    Manifest,
    Preprocessing,
    WordPieceTokenizer,
    create,
    create_text,
    load,
    read_manifest,
    save,
)
from unveil_pretrain.cli import main
from unveil_pretrain.data import open_samples
from unveil_pretrain.data.opening import open_listed
from unveil_pretrain.errors import ConfigError, DataError
from unveil_pretrain.loop import train
from unveil_pretrain.remeasure import ScoreSettings, remeasure

CPU = torch.device("cpu")


def trained(config, shards, out: Path) -> Path:
    return train(
        config,
        out=out,
        train_data=shards[0],
        val_data=shards[1],
        device="cpu",
        loggers=(),
        log=lambda line: None,
        command=(),
    )


def scored(path: Path, data: str, **settings):
    return remeasure(load(path), open_samples(data), ScoreSettings(**settings), device=CPU)


@pytest.fixture(scope="module")
def mae(mae_config, shards, tmp_path_factory) -> Path:
    return trained(replace(mae_config, val_masks=2, val_images=7), shards, tmp_path_factory.mktemp("mae") / "run")


@pytest.fixture(scope="module")
def simmim(simmim_config, shards, tmp_path_factory) -> Path:
    return trained(replace(simmim_config, steps=2), shards, tmp_path_factory.mktemp("simmim") / "run")


@pytest.fixture(scope="module")
def flip(flip_config, shards, tmp_path_factory) -> Path:
    return trained(replace(flip_config, steps=2), shards, tmp_path_factory.mktemp("flip") / "run")


@pytest.mark.parametrize(
    ("name", "settings"),
    [("mae", {"batch_size": 5, "num_images": 7}), ("simmim", {"batch_size": 5}), ("flip", {"batch_size": 6})],
)
def test_over_its_own_images_the_loss_is_the_recorded_one_to_the_bit(name, settings, shards, request):
    path = request.getfixturevalue(name)
    found = scored(path, shards[1], **settings)
    recorded = read_manifest(path).val[-1]
    assert found.evaluation.score().loss == recorded.loss
    assert found.evaluation.score().standard_error == recorded.standard_error
    assert found.first_difference is None
    assert found.passport == read_manifest(path).passport


def test_another_batch_size_moves_only_the_last_digits(mae, shards):
    loss = scored(mae, shards[1], batch_size=3, num_images=7).evaluation.score().loss
    assert loss == pytest.approx(read_manifest(mae).val[-1].loss, rel=1e-5)


def test_other_masks_and_images_are_named_by_the_passport(mae, shards):
    assert scored(mae, shards[1], num_images=7, mask_seed=5).first_difference == "mask_seed"
    assert scored(mae, shards[0]).first_difference == "images_hash"
    plain = scored(mae, shards[1], num_images=7, objective={"normalise_target": False})
    assert plain.first_difference == "target_normalisation"


def test_checkpoints_from_before_settings_were_kept_find_them_in_the_run(mae, shards, tmp_path):
    run = tmp_path / "run"
    checkpoint = load(mae)
    old = replace(checkpoint.manifest, objective_settings=None, files={})
    path = run / "checkpoints" / mae.name
    save(path, encoder=checkpoint.encoder, manifest=old, heads=checkpoint.heads)
    with pytest.raises(ConfigError, match="does not say with which settings mae was trained"):
        scored(path, shards[1])
    (run / "run.json").write_text((mae.parent.parent / "run.json").read_text())
    found = scored(path, shards[1], batch_size=5, num_images=7)
    assert found.evaluation.score().loss == old.val[-1].loss


def test_without_a_decoder_there_is_no_loss(mae, shards, tmp_path):
    checkpoint = load(mae)
    bare = replace(checkpoint.manifest, objective_settings=None, files={})
    save(tmp_path / "bare", encoder=checkpoint.encoder, manifest=bare)
    with pytest.raises(ConfigError, match="has no decoder, without which there is no loss"):
        scored(tmp_path / "bare", shards[1])
    unknown = replace(bare, objective="dino")
    save(tmp_path / "dino", encoder=checkpoint.encoder, manifest=unknown)
    with pytest.raises(ConfigError, match="objective is 'dino'; give one of"):
        scored(tmp_path / "dino", shards[1])


def test_the_command_writes_loss_passport_and_a_row_per_image(simmim, shards, tmp_path, capsys):
    out, table = tmp_path / "score.json", tmp_path / "score.parquet"
    main(["score", "--ckpt", str(simmim.parent.parent), "--images", shards[1], "--batch-size", "5", "--device", "cpu",
          "--json", str(out), "--table", str(table)])  # fmt: skip
    said, rows = json.loads(out.read_text()), polars.read_parquet(table)
    assert "under the same passport" in capsys.readouterr().out
    assert said["loss"] == said["recorded"]["loss"] == pytest.approx(rows["value"].mean(), rel=1e-12)
    assert said["first_difference"] is None
    assert said["passport_hash"] == said["recorded_passport_hash"] == read_manifest(simmim).passport.hash
    assert rows["key"].n_unique() == said["num_images"] == 10
    assert said["settings"]["mask_unit"] == 8


def test_settings_that_are_no_json_object_are_refused(simmim, shards, capsys):
    for text in ("{", "3"):
        with pytest.raises(SystemExit) as stop:
            main(["score", "--ckpt", str(simmim), "--images", shards[1], "--settings", text])
        assert stop.value.code == 2
        assert "--settings is" in capsys.readouterr().err


def test_a_clip_pair_is_scored_over_captions_in_fixed_pools(shards, tmp_path):
    captions = [f"a {colour} field number" for colour in ("red", "green", "blue")]
    torch.manual_seed(0)
    tokenizer = WordPieceTokenizer.train(captions, 64, length=8)
    encoder = create("vit_tiny", image_size=32)
    pair = ImageTextPair(encoder, create_text("text_tiny", tokenizer.vocab_size, 8), embed_dim=16)
    with torch.no_grad():
        pair.raw_logit_scale.zero_()
    manifest = Manifest(
        encoder=encoder.spec, text=pair.text.spec, preprocessing=Preprocessing(image_size=(32, 32)), objective="clip",
        mask={}, realised_ratio=0.0, seed=0, step=0, samples_seen=0, unique_samples=0, tokens_seen=0,
        device_seconds=0.0, data_hash="", num_parameters=encoder.num_parameters, versions={}, created="",
    )  # fmt: skip
    save(
        tmp_path / "clip",
        encoder=encoder,
        manifest=manifest,
        heads=pair.heads_state(),
        tokenizer_json=tokenizer.to_json(),
    )
    found = scored(tmp_path / "clip", shards[1], objective={"negative_pool": 5})
    assert found.passport.objective == "flip"
    assert found.passport.negative_pool == 5
    assert found.passport.realised_ratio == 0.0
    # At temperature 1 fresh towers can hardly tell a pool apart: the loss is near ln(5).
    assert found.chance == pytest.approx(1.6094379)
    assert found.evaluation.score().loss == pytest.approx(found.chance, abs=0.2)
    assert found.evaluation.score().num_images == 10
    with pytest.raises(ConfigError, match="is CLIP, whose settings are fixed: it has no mask_ratio"):
        scored(tmp_path / "clip", shards[1], objective={"mask_ratio": 0.5})


def test_a_list_names_images_by_path_or_by_key(tmp_path):
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "some.txt").write_text("b/3.png\na/1\n")
    assert open_listed(str(tmp_path / "some.txt"), None).keys == ("a/1", "b/3")
    assert open_listed(str(tmp_path), tmp_path / "some.txt").keys == ("a/1", "b/3")
    assert len(open_listed(str(tmp_path), None)) == 3
    (tmp_path / "wrong.txt").write_text("c/4.png\n")
    with pytest.raises(DataError, match=r"'c/4'"):
        open_listed(str(tmp_path / "wrong.txt"), None)
    with pytest.raises(DataError, match="is a list already"):
        open_listed(str(tmp_path / "some.txt"), tmp_path / "wrong.txt")
