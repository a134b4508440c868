"""Settings survive the way through run.json."""

import json
from dataclasses import replace

import pytest
from unveil_pretrain import ConfigError, ResumeError, train
from unveil_pretrain.config import config_to_json
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES
from unveil_pretrain.stored_config import config_from_json, config_of_run, run_record

RECIPES = {**MIM_RECIPES, **FLIP_RECIPES}


def written(config):
    return json.loads(json.dumps(config_to_json(config)))


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_was_written_is_what_is_read(recipe):
    config = replace(RECIPES[recipe](), seed=12, betas=(0.5, 0.25))
    assert config_from_json(written(config)) == config


def test_settings_that_this_version_does_not_know_are_named():
    values = written(MIM_RECIPES["tiny_simmim"]())
    with pytest.raises(ConfigError, match="MimConfig has no setting colour"):
        config_from_json({**values, "colour": 1})
    with pytest.raises(ConfigError, match=r"objective is 'jigsaw'; give one of .*simmim"):
        config_from_json({**values, "objective": {"name": "jigsaw"}})
    with pytest.raises(ConfigError, match="encoder"):
        config_from_json({name: value for name, value in values.items() if name != "encoder"})
    with pytest.raises(ConfigError, match="steps is 0"):
        config_from_json({**values, "steps": 0})
    without_default = {name: value for name, value in values.items() if name != "clip_norm"}
    assert config_from_json(without_default) == MIM_RECIPES["tiny_simmim"]()


def test_a_run_folder_tells_its_settings(tmp_path, mae_config, shards):
    config = replace(mae_config, steps=1)
    train(config, out=tmp_path / "run", train_data=shards[0], val_data=shards[1], device="cpu", progress=False,
          log=lambda _: None)  # fmt: skip
    assert config_of_run(tmp_path / "run") == config
    assert run_record(tmp_path / "run")["train_data"] == shards[0]
    with pytest.raises(ResumeError, match="holds no run"):
        config_of_run(tmp_path)
    (tmp_path / "run.json").write_text('{"identity": 3}')
    with pytest.raises(ResumeError, match="cannot be read"):
        config_of_run(tmp_path)
