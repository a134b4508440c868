"""Two processes that import yapf for the first time: its cache is found half written."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.mm
pytest.importorskip("yapf", reason="needs mmengine's yapf: the extras [imagenet], [detection] or [segmentation]")

IMPORTED = """
import sys
from unveil_evalharness.compat.formatter import import_yapf
import_yapf(attempts=int(sys.argv[1]))
from yapf.yapflib.yapf_api import FormatCode
print(FormatCode("a=1")[0].strip())
"""
MENDED = """
import pathlib, sys, threading
for file in pathlib.Path(sys.argv[2]).rglob("*.pickle"):
    threading.Timer(0.5, file.unlink).start()
"""


@pytest.fixture
def child(tmp_path):
    """A function that runs a script which finds yapf's cache with this content."""
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONWARNINGS": "ignore"}

    def run(script, content, attempts):
        subprocess.run([sys.executable, "-c", "import yapf"], env=environment, check=True)
        files = list(tmp_path.rglob("*.pickle"))
        assert files
        for file in files:
            file.write_bytes(content)
        words = [sys.executable, "-c", script, str(attempts), str(tmp_path)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.mark.parametrize("content", [b"", b"\x80\x05\x95"])
def test_a_moment_later_it_is_whole(child, content):
    done = child(MENDED + IMPORTED, content, 100)
    assert (done.returncode, done.stdout.strip()) == (0, "a = 1"), done.stderr


def test_without_waiting_it_would_fail(child):
    assert "EOFError: Ran out of input" in child("import yapf", b"", 1).stderr


def test_a_cache_that_stays_damaged_is_named(child):
    done = child(IMPORTED, b"", 3)
    assert "DependencyError: yapf, which mmengine needs, cannot read its cached grammar (EOFError" in done.stderr
    assert "remove the folder YAPF" in done.stderr
