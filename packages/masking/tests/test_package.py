"""The package as a product: a light import, an honest `__all__`, a README that runs."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import unveil_masking

README = Path(__file__).parents[1] / "README.md"
HEAVY = ("torch", "torchvision", "timm", "jaxtyping", "scipy")

# A finder in front of all others notes, and refuses, each heavy module that anything tries to load.
PROBE = """
import sys
class Watch:
    seen = set()
    def find_spec(self, name, path=None, target=None):
        if name in {heavy}:
            self.seen.add(name)
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Watch())
{statement}
print(",".join(sorted(Watch.seen)))
"""


def heavy_imports(statement: str) -> list[str]:
    """Names of heavy modules that `statement` tries to load in a fresh interpreter."""
    probe = PROBE.format(heavy=set(HEAVY), statement=statement)
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return [name for name in done.stdout.strip().split(",") if name]


def test_import_is_light():
    assert heavy_imports("import unveil_masking") == []


TIMED = """
import time
start = time.process_time()
{statement}
print(time.process_time() - start)
"""


def import_seconds(statement: str) -> float:
    """CPU seconds of a statement in a fresh interpreter, the best of five: neighbours on the machine lengthen it."""
    command = [sys.executable, "-c", TIMED.format(statement=statement)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(5)]
    return min(float(run.stdout) for run in runs)


def test_import_is_fast():
    """Below 0.3 seconds, NumPy's own import included."""
    assert import_seconds("import unveil_masking") < 0.3
    assert import_seconds("import unveil_masking, time\nwhile time.process_time() < 0.6:\n    pass") > 0.3


def test_sampling_is_light():
    statement = (
        "import numpy, unveil_masking as m\n"
        "p = m.UnitMask(2, 0.5).sample(m.Grid(4, 4), numpy.arange(3), seed=0)\n"
        "m.restore(m.take(numpy.zeros((3, 16, 2)), p), p, 0.0)"
    )
    assert heavy_imports(statement) == []


@pytest.mark.parametrize("statement", ["import unveil_masking\ntry:\n    import torch\nexcept ImportError:\n    pass"])
def test_the_light_import_check_can_fail(statement):
    assert "torch" in heavy_imports(statement)


def test_all_is_sorted_and_equals_reality():
    public = {
        name
        for name, value in vars(unveil_masking).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }
    assert unveil_masking.__all__ == sorted(unveil_masking.__all__)
    assert set(unveil_masking.__all__) == public
    for name in set(unveil_masking.__all__) - {"Rounding", "Share"}:  # a Literal carries no docstring
        assert getattr(unveil_masking, name).__doc__, name


def test_the_readme_example_prints_what_the_readme_says(capsys):
    (example, output), *_ = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", README.read_text(), re.S)
    exec(compile(example, str(README), "exec"), {})
    assert capsys.readouterr().out == output
