"""docs/protocols.md names every constant of a protocol, and the values it gives for each suite are those in force."""

import dataclasses
import re
from pathlib import Path

import pytest
from unveil_evalharness.tasks import load_task
from unveil_evalharness.tasks.imagenet_ft.config import full

PAGE = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
MARKS = {"paper", "code", "ours"}
SPELLED = ("imagenet_ft", "linear_probe", "knn", "val_loss")
"""Tasks whose tables name the fields as the code spells them."""


def section(name: str) -> str:
    found = re.search(rf"^## {name}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, f"docs/protocols.md has no section {name}"
    return found.group(1)


def rows(text: str) -> list[dict[str, str]]:
    """The rows of all tables, by the names of their columns."""
    found, header = [], []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else []
        if not cells:
            header = []
        elif not header:
            header = cells
        elif set("".join(cells)) - set("-: "):
            found.append(dict(zip(header, cells, strict=True)))
    return found


def fields_of(protocol: object) -> set[str]:
    """Names of all fields, those of nested dataclasses too."""
    names = set()
    for field in dataclasses.fields(protocol):  # pyright: ignore[reportArgumentType]  # every protocol is a dataclass
        names.add(field.name)
        value = getattr(protocol, field.name)
        for part in value if isinstance(value, tuple) else (value,):
            if dataclasses.is_dataclass(part):
                names |= fields_of(part)
    return names


@pytest.mark.parametrize("name", SPELLED)
def test_every_constant_is_named_with_a_mark(name):
    named = set()
    for row in rows(section(name)):
        marks = set(re.findall(r"paper|code|ours", row["mark"]))
        assert marks, f"{row} has no mark"
        assert marks <= MARKS
        named |= set(re.findall(r"`(\w+)`", row.get("constant", "")))
    assert named == fields_of(load_task(name).protocol("full"))


@pytest.mark.parametrize("name", ["linear_probe", "knn"])
def test_the_numbers_given_are_those_in_force(name):
    checked = 0
    for row in rows(section(name)):
        constants = re.findall(r"`(\w+)`", row["constant"])
        for suite in ("quick", "short", "full"):
            protocol = load_task(name).protocol(suite)
            for constant, given in zip(constants, row[suite].replace(",", "").split(), strict=False):
                value = getattr(protocol, constant)
                if isinstance(value, int | float) and re.fullmatch(r"[\d.e-]+", given):
                    assert float(given) == value, (suite, constant)
                    checked += 1
    assert checked >= 12


def test_every_recipe_of_fine_tuning_is_in_the_table_as_it_is_in_force():
    table = {row["recipe"]: row for row in rows(section("imagenet_ft")) if "recipe" in row}
    assert list(table) == [recipe.name for recipe in full().recipes]
    for recipe in full().recipes:
        row = table[recipe.name]
        assert row["epochs / warm-up"] == f"{recipe.duration} / {recipe.warmup}"
        rate, batch = row["lr at batch"].split(" at ")
        assert (float(rate), int(batch)) == (pytest.approx(recipe.lr), recipe.batch_size)
        assert float(row["layer decay"]) == recipe.layer_decay
        assert float(row["drop path"]) == recipe.drop_path
        assert row["clip"] == ("none" if recipe.clip_norm is None else f"{recipe.clip_norm:g}")


def test_a_constant_left_out_is_noticed():
    named = {name for row in rows("| constant | mark |\n|---|---|\n| `neighbours` | code |\n") for name in row.values()}
    assert named == {"`neighbours`", "code"}
    assert fields_of(load_task("knn").protocol("full")) - {"neighbours"}
