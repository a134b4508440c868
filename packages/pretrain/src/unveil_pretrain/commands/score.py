"""`pretrain score FLAGS`: the validation loss of a finished checkpoint, measured again over any images."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from unveil_backbones import load
from unveil_backbones.limits import parse_json
from unveil_backbones.whole_files import write_whole

from unveil_pretrain.commands.parsing import parse
from unveil_pretrain.config import Precision
from unveil_pretrain.data.clip_decode import VIDEO_EXTENSIONS
from unveil_pretrain.data.images import IMAGE_EXTENSIONS
from unveil_pretrain.data.opening import open_listed
from unveil_pretrain.data.retrying import ReadPolicy
from unveil_pretrain.errors import ConfigError, OutputError
from unveil_pretrain.record import package_versions
from unveil_pretrain.remeasure import Remeasured, ScoreSettings, remeasure
from unveil_pretrain.run import DeviceName, choose_device
from unveil_pretrain.val_table import write_frame

__all__ = ["ScoreCommand", "run", "summary"]


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreCommand:
    """The validation loss of a checkpoint, with its standard error and passport.

    Frozen masks, crops and pools are those of validation during training: over the run's own validation data this gives
    the loss that the manifest records.
    """

    ckpt: Path
    """A checkpoint directory, or the folder of a run, whose newest checkpoint is taken."""
    images: str
    """Shards, a folder of images or a .zip, written as --val-data is; or a .txt list of paths within its folder."""
    list: Path | None = None
    """Score only the images that this file names: a list of `pretrain subset`, or paths within --images."""
    num_images: int = 0
    """Images to score at most, the seeded subset that --val-images takes; 0 for all."""
    num_masks: int | None = None
    """Frozen masks per image, whose mean is its loss; those of the checkpoint's validation unless given, else 1."""
    mask_seed: int | None = None
    """Seed of the masks; that of the checkpoint's validation unless given, else 1000003."""
    pool: int | None = None
    """Pairs that are compared with each other in a contrastive loss; those of its settings unless given."""
    precision: Precision | None = None
    """Arithmetic of the forward pass; that of the checkpoint's validation unless given, else float32."""
    settings: str = ""
    """Settings of the objective as a JSON object, before those of the checkpoint: '{"normalise_target": false}'."""
    batch_size: int = 64
    """Images to encode at once; the losses do not depend on it beyond rounding."""
    num_workers: int = 0
    """Threads that decode images."""
    read_timeout: float = 60.0
    """Seconds that one try to read an image may take."""
    read_tries: int = 5
    """Tries before a read has failed for good."""
    device: DeviceName = "auto"
    """Where to compute; auto takes CUDA where there is one."""
    json: Path | None = None
    """Write loss, standard error, views, passport and versions there."""
    table: Path | None = None
    """Write the values of every image there, as parquet."""


def run(given: Sequence[str]) -> int:
    """Score, write what is asked for, and print the loss."""
    command = parse(ScoreCommand, given, prog="pretrain score")
    begin = time.perf_counter()
    checkpoint = load(command.ckpt)
    video = checkpoint.manifest.objective == "videomae"
    samples = open_listed(
        command.images,
        command.list,
        extensions=VIDEO_EXTENSIONS if video else IMAGE_EXTENSIONS,
        policy=ReadPolicy(timeout=command.read_timeout, tries=command.read_tries),
    )
    scored = remeasure(
        checkpoint,
        samples,
        ScoreSettings(
            objective=_objective(command),
            num_images=command.num_images,
            num_masks=command.num_masks,
            mask_seed=command.mask_seed,
            precision=command.precision,
            batch_size=command.batch_size,
            num_workers=command.num_workers,
        ),
        device=choose_device(command.device),
    )
    if command.table is not None:
        write_frame(command.table, [scored.evaluation.table("val")])
    if command.json is not None:
        about = {
            "checkpoint_sha256": checkpoint.sha256,
            "step": checkpoint.manifest.step,
            **summary(scored),
            "versions": package_versions(),
            "seconds": round(time.perf_counter() - begin, 3),
        }
        _write(command.json, json.dumps(about, indent=1) + "\n")
    print(_line(scored))
    return 0


def summary(scored: Remeasured) -> dict[str, object]:
    """Everything but the values of single images, as JSON keeps it."""
    evaluation, main = scored.evaluation, scored.evaluation.score()
    views = {**evaluation.losses, **evaluation.set_scores}
    scores = {name: evaluation.score(name) for name in views if name != "loss"}
    recorded = None if scored.recorded is None else scored.recorded.to_json()
    passport = scored.recorded_passport
    return {
        "objective": scored.config.name,
        "settings": asdict(scored.config),
        "loss": main.loss,
        "standard_error": main.standard_error,
        "num_images": main.num_images,
        "chance": scored.chance,
        "views": {name: {"value": one.loss, "standard_error": one.standard_error} for name, one in scores.items()},
        "passport": scored.passport.to_json(),
        "passport_hash": scored.passport.hash,
        "recorded": recorded,
        "recorded_passport_hash": None if passport is None else passport.hash,
        "first_difference": scored.first_difference,
    }


def _line(scored: Remeasured) -> str:
    main, recorded = scored.evaluation.score(), scored.recorded
    value = f"loss {main.loss:.6g} ± {main.standard_error:.2g}"
    text = f"{value} over {main.num_images} images, passport {scored.passport.hash}"
    if recorded is None:
        return f"{text}; the manifest records none"
    if scored.first_difference is not None:
        return f"{text}; the manifest records {recorded.loss:.6g} with another {scored.first_difference}"
    return f"{text}; the manifest records {recorded.loss:.6g} under the same passport"


def _objective(command: ScoreCommand) -> Mapping[str, object]:
    try:
        settings = parse_json(command.settings or "{}")
    except ValueError as error:
        raise ConfigError(f"--settings is no JSON ({error}); give an object such as {{}}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"--settings is {command.settings!r}; give a JSON object of settings by name")
    return settings if command.pool is None else {**settings, "negative_pool": command.pool}


def _write(file: Path, text: str) -> None:
    try:
        write_whole(file, text)
    except OSError as error:
        raise OutputError(f"cannot write {file} ({error.strerror}); give a place in a folder that exists") from error
