"""The published table exists twice, because the packages do not import each other; both copies say the same."""

import csv
from importlib import resources


def rows(package: str, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((resources.files(package) / name).read_text(encoding="utf-8").splitlines()))


def test_both_copies_of_the_63_runs_agree() -> None:
    planned = [
        (
            f"SwinV2-{row['model']}", int(row["million_parameters"]) * 10**6, row["data"], int(row["num_images"]),
            int(row["steps"]), row["val_loss"], row["top1"],
        )
        for row in rows("unveil_pretrain.planning", "published_runs.csv")
    ]  # fmt: skip
    evaluated = [
        (
            row["model"], int(row["params"]), row["data"], int(row["num_images"]),
            int(row["steps"]), row["loss"], row["value"],
        )
        for row in rows("unveil_evalharness.published", "xie2023.csv")
    ]  # fmt: skip
    assert len(planned) == 63
    assert planned == evaluated
