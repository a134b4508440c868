"""A checkpoint's objective again, decoder included, so that images can be scored as during its training.

Settings come from the manifest, or from the run.json of a run whose checkpoints were written before manifests kept
them; the caller's go before both. A pair of open_clip or transformers has no settings: it is CLIP, which is FLIP with
whole images.
"""

from collections.abc import Mapping

from unveil_backbones import Checkpoint
from unveil_backbones.checkpoint import restore_pair
from unveil_backbones.text import TextConfig
from unveil_backbones.tokenizer_json import tokenizer_from_json
from unveil_masking import RandomMask

from unveil_pretrain.errors import ConfigError
from unveil_pretrain.objectives.base import BuildContext, Objective, ObjectiveConfig
from unveil_pretrain.objectives.flip import FLIPConfig
from unveil_pretrain.objectives.flip_model import FLIP, PairLossSettings
from unveil_pretrain.objectives.flip_text import TextInput
from unveil_pretrain.stored_config import check_objective, objective_from_json, run_record

__all__ = ["restore_objective"]

_CLIP = "clip"
"""Objective that converters give to image-text pairs of other programs."""

_CLIP_SETTINGS = frozenset({"negative_pool", "loss_chunk"})
"""Settings of FLIP that do not change what CLIP is."""


def restore_objective(checkpoint: Checkpoint, given: Mapping[str, object]) -> tuple[ObjectiveConfig, Objective]:
    """The objective with the weights of the checkpoint, in evaluation mode, and the settings it has.

    Args:
        checkpoint: As `unveil_backbones.load` gives it; its encoder becomes part of the objective.
        given: Settings by name that go before those of the checkpoint.

    Raises:
        ConfigError: the checkpoint has no objective that can be scored, no decoder, or does not say its settings; or a
            setting is unknown or impossible.
        BackboneError: the text tower is damaged.
    """
    if checkpoint.manifest.objective == _CLIP:
        return _restore_clip(checkpoint, given)
    check_objective(checkpoint.manifest.objective)
    config = objective_from_json(checkpoint.manifest.objective, {**_known_settings(checkpoint, given), **given})
    weights = {name: value.clone() for name, value in checkpoint.encoder.state_dict().items()}
    objective = config.build(
        BuildContext(
            encoder=checkpoint.encoder,
            image_size=checkpoint.manifest.preprocessing.image_size,
            captions=_no_captions,
            tokenizer_json=checkpoint.tokenizer_json,
            stored_heads=checkpoint.heads,
        )
    )
    objective.encoder.load_state_dict(weights)
    objective.load_heads(checkpoint.heads)
    return config, objective.eval()


def _restore_clip(checkpoint: Checkpoint, given: Mapping[str, object]) -> tuple[FLIPConfig, FLIP]:
    others = sorted(set(given) - _CLIP_SETTINGS)
    if others:
        raise ConfigError(
            f"{checkpoint.path} is CLIP, whose settings are fixed: it has no {', '.join(others)}; give only "
            f"{', '.join(sorted(_CLIP_SETTINGS))}"
        )
    if checkpoint.tokenizer_json is None:
        raise ConfigError(f"{checkpoint.path} has no tokenizer, so that no caption can be scored; convert it again")
    pair = restore_pair(checkpoint)
    text = pair.text.config
    assert isinstance(text, TextConfig)
    settings = {"mask_ratio": 0.0, "text_length": text.length, "embed_dim": pair.embed_dim, **given}
    config = objective_from_json(FLIPConfig.name, settings)
    assert isinstance(config, FLIPConfig)
    objective = FLIP(
        pair,
        TextInput(tokenizer_from_json(checkpoint.tokenizer_json), causal=text.causal),
        RandomMask(0.0),
        checkpoint.manifest.preprocessing.image_size,
        loss=PairLossSettings(kind="infonce", initial_bias=config.initial_bias, chunk_size=config.loss_chunk),
        negative_pool=config.negative_pool,
    )
    return config, objective.eval()


def _known_settings(checkpoint: Checkpoint, given: Mapping[str, object]) -> Mapping[str, object]:
    manifest = checkpoint.manifest
    if manifest.objective_settings is not None:
        return manifest.objective_settings
    run = checkpoint.path.absolute().parent.parent
    if (run / "run.json").is_file():
        settings = dict(run_record(run)["identity"]["config"]["objective"])
        if settings.pop("name") == manifest.objective:
            return settings
    if not checkpoint.heads:
        raise ConfigError(
            f"{checkpoint.path} ({manifest.objective}) has no decoder, without which there is no loss; take the whole "
            "pre-training file, or a checkpoint of a run"
        )
    if not given:
        raise ConfigError(
            f"{checkpoint.path} does not say with which settings {manifest.objective} was trained, and lies in no run; "
            """give them, as in --settings '{"mask_ratio": 0.75}'"""
        )
    return {}


def _no_captions(most: int) -> list[str]:
    raise ConfigError(f"{most} training captions are wanted and there are none; the checkpoint lacks its tokenizer")
