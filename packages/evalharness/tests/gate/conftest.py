"""Output folders of `evalharness run` with outcomes of our choosing, written without running anything."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars
import pytest
from unveil_evalharness.compare.measured import Measured
from unveil_evalharness.compare.pairing import Tables
from unveil_evalharness.results import ResultRow, append_rows

BLANK = ResultRow(
    checkpoint="runs/a/checkpoints/step_00000010",
    checkpoint_sha256="a" * 64,
    label="mae a",
    task="imagenet_ft",
    task_version=1,
    suite="quick",
    protocol="0123456789abcdef",
    status="ok",
    metric="imagenet_ft.acc1",
    main=True,
    value=0.5,
    baseline=0.1,
    standard_error=0.01,
    n=100,
    seed=0,
    data_hash="d" * 16,
    versions={"python": "3.11.7", "torch": "2.4.0"},
    hardware="a CPU, 1 threads",
    time="2024-01-01T00:00:00+00:00",
)


@pytest.fixture(scope="session")
def blank() -> ResultRow:
    """A finished row to make others from."""
    return BLANK


@pytest.fixture(scope="session")
def write_side() -> Callable[..., Path]:
    """Writes 0/1 outcomes per seed as classification results: rows and parquet files."""

    def write(
        folder: Path, outcomes: Mapping[int, np.ndarray], *, sha: str = "a", keep: bool = True, **changes
    ) -> Path:
        rows = []
        (folder / "samples").mkdir(parents=True, exist_ok=True)
        for seed, correct in outcomes.items():
            name = f"samples/imagenet_ft-{sha * 12}-seed{seed}.parquet"
            n = len(correct)
            if keep:
                table = {"image": [f"{i:05d}.jpg" for i in range(n)], "label": [0] * n, "correct": correct}
                polars.DataFrame(table).write_parquet(folder / name)
            value = float(np.mean(correct))
            row = dataclasses.replace(
                BLANK,
                checkpoint=f"runs/{sha}/checkpoints/step_00000010",
                checkpoint_sha256=sha * 64,
                label=f"mae {sha}",
                value=value,
                standard_error=float(np.sqrt(value * (1 - value) / n)),
                n=n,
                seed=seed,
                samples=name if keep else "",
            )
            rows.append(dataclasses.replace(row, **changes))
        append_rows(folder / "results.jsonl", rows)
        return folder

    return write


@pytest.fixture(scope="session")
def in_memory() -> Callable[..., tuple[Measured, Tables]]:
    """A measurement whose outcomes were never on disk: [runs, items], with the image of each item."""

    def make(
        outcomes: np.ndarray, *, tables: Tables, name: str, clusters: np.ndarray | None = None, **changes
    ) -> Measured:
        paths = []
        for number, values in enumerate(outcomes):
            path = Path(f"{name}-{number}.parquet")
            table = {"key": np.arange(len(values)), "score": values.astype(np.float64)}
            if clusters is not None:
                table["image"] = clusters
            tables.known[path] = polars.DataFrame(table)
            paths.append(path)
        one = Measured(
            metric="toy.score",
            task="toy",
            task_version=1,
            suite="quick",
            protocol="p",
            data_hash="d",
            limit=None,
            higher_is_better=True,
            unit="fraction",
            main=True,
            n=outcomes.shape[1],
            values=tuple(float(values.mean()) for values in outcomes),
            standard_errors=(None,) * len(outcomes),
            seeds=tuple(range(len(outcomes))),
            checkpoints=(name,) * len(outcomes),
            samples=tuple(paths),
        )
        return dataclasses.replace(one, **changes)

    return make


@pytest.fixture
def evalharness(capsys):
    """The command line: exit code, stdout, stderr."""
    from unveil_evalharness.cli import main

    def call(*arguments):
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def flips():
    """0/1 outcomes of two sides with given discordant pairs: (first, second)."""

    def make(n: int, gains: int, losses: int, right: int = 0) -> tuple[np.ndarray, np.ndarray]:
        first, second = np.zeros(n, bool), np.zeros(n, bool)
        second[:gains] = True
        first[gains : gains + losses] = True
        both = slice(gains + losses, gains + losses + right)
        first[both] = second[both] = True
        return first, second

    return make
