"""Settings as typed values again, from the JSON of `config_to_json`: a run.json is enough to repeat its run."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from unveil_backbones.limits import parse_json

from unveil_pretrain.config import FlipConfig, MimConfig
from unveil_pretrain.errors import ConfigError, ResumeError
from unveil_pretrain.objectives.base import ObjectiveConfig
from unveil_pretrain.recipes import FLIP_RECIPES, MIM_RECIPES

__all__ = ["check_objective", "config_from_json", "config_of_run", "objective_from_json", "run_record"]

_Settings = TypeVar("_Settings")


def config_from_json(values: Mapping[str, object]) -> MimConfig | FlipConfig:
    """The configuration that `config_to_json` wrote; settings that it lacks take their defaults.

    Args:
        values: Settings by name; `objective` is a mapping that carries its name.

    Raises:
        ConfigError: a setting or the objective is unknown, one without default is missing, or a value is not allowed.
    """
    objective = values.get("objective")
    name = objective.get("name") if isinstance(objective, Mapping) else None
    if not isinstance(objective, Mapping):
        objective = {}
    run_kind, _ = _kind(name)
    inner = {key: value for key, value in objective.items() if key != "name"}
    return _filled(run_kind, {**values, "objective": objective_from_json(name, inner)})


def objective_from_json(name: object, values: Mapping[str, object]) -> ObjectiveConfig:
    """The settings of the objective called `name`; those that `values` lacks take their defaults.

    Raises:
        ConfigError: the objective or a setting is unknown, or a value is not allowed.
    """
    _, kind = _kind(name)
    return _filled(kind, values)


def config_of_run(folder: Path) -> MimConfig | FlipConfig:
    """The configuration of a run's folder.

    Raises:
        ResumeError: as `run_record`.
        ConfigError: run.json holds settings that this version does not know.
    """
    try:
        return config_from_json(run_record(folder)["identity"]["config"])
    except ConfigError as error:
        raise ConfigError(f"{folder / 'run.json'}: {error}") from error


def run_record(folder: Path) -> dict[str, Any]:
    """What run.json holds: identity (settings, hashes of the data), command, places, versions.

    Raises:
        ResumeError: there is no run in the folder, or its run.json cannot be read.
    """
    file = folder / "run.json"
    try:
        record = parse_json(file.read_text(encoding="utf-8"))
        record["identity"]["config"]["objective"]["name"]
    except FileNotFoundError as error:
        raise ResumeError(f"{folder} holds no run (no run.json); give the --out of a run") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ResumeError(
            f"{file} cannot be read ({error!r}); restore it, or give the folder of another run"
        ) from error
    return record


def check_objective(name: object) -> None:
    """Refuse a name that is no objective's.

    Raises:
        ConfigError: the objective is unknown.
    """
    _kind(name)


def _kind(name: object) -> tuple[type[MimConfig | FlipConfig], type[ObjectiveConfig]]:
    kinds = _objectives()
    if not isinstance(name, str) or name not in kinds:
        raise ConfigError(f"objective is {name!r}; give one of {', '.join(kinds)}, which the recipes use")
    return kinds[name]


def _objectives() -> dict[str, tuple[type[MimConfig | FlipConfig], type[ObjectiveConfig]]]:
    """Kind of run and settings class of each objective, from the recipes."""
    configs = [recipe() for recipe in (*MIM_RECIPES.values(), *FLIP_RECIPES.values())]
    return {config.objective.name: (type(config), type(config.objective)) for config in configs}


def _filled(kind: type[_Settings], values: Mapping[str, object]) -> _Settings:
    known = {field.name for field in fields(cast(Any, kind))}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no setting {', '.join(unknown)}; use the version of the package that wrote it, or "
            f"leave it out"
        )
    hints = get_type_hints(kind)
    try:
        return kind(**{name: _value(name, hints[name], value) for name, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"settings of {kind.__name__} are missing or of another type ({error}); add them") from error


def _value(name: str, hint: Any, value: object) -> object:
    """A setting's value; settings within settings are filled like those around them."""
    if isinstance(value, Mapping) and is_dataclass(hint):
        return _filled(cast(type[object], hint), cast(Mapping[str, object], value))
    kinds = get_args(hint) if get_origin(hint) is tuple else ()
    if kinds and not isinstance(value, list | tuple):
        raise ConfigError(f"{name} is {value!r}; give a list")
    if isinstance(value, list) and kinds and Ellipsis not in kinds and len(value) != len(kinds):
        raise ConfigError(f"{name} has {len(value)} values; give {len(kinds)}")
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, int) and abs(one) >= 2**63:  # no float may hold it, and no array
            raise ConfigError(f"{name} has a number of {one.bit_length()} bits; at most 63 are allowed")
    return _tuples(value)


def _tuples(value: object) -> object:
    return tuple(_tuples(one) for one in value) if isinstance(value, list) else value
