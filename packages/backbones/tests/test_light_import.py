"""Manifests can be read without torch, and every public name exists."""

import subprocess
import sys

import pytest
import unveil_backbones

HEAVY = ("torch", "numpy", "timm", "torchvision", "safetensors", "tokenizers", "jaxtyping")


def heavy_modules_after(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import unveil_backbones",
        "import unveil_backbones.manifest",
        "from unveil_backbones import Manifest, Passport, resolve_checkpoint, CheckpointError",
    ],
)
def test_manifests_need_the_standard_library_only(statement):
    assert heavy_modules_after(statement) == set()


def test_this_check_would_notice_a_heavy_import():
    assert heavy_modules_after("import unveil_backbones.manifest, numpy") == {"numpy"}


def test_every_public_name_is_there():
    for name in unveil_backbones.__all__:
        assert getattr(unveil_backbones, name) is not None
    assert set(unveil_backbones.__all__) <= set(dir(unveil_backbones))


def test_unknown_names_are_refused_like_those_of_any_module():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        unveil_backbones.nothing  # noqa: B018


def test_public_names_come_from_modules_that_declare_them():
    for module, public in unveil_backbones._MODULES.items():
        declared = __import__(f"unveil_backbones.{module}", fromlist=["__all__"]).__all__
        assert set(public) <= set(declared)
    listed = {name for public in unveil_backbones._MODULES.values() for name in public}
    assert listed == set(unveil_backbones.__all__)
