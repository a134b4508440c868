"""Every dependency has a licence that is allowed, the page says so, and one that has none would be noticed."""

from email.message import Message

import licences
import pytest


@pytest.fixture(scope="module")
def found():
    return licences.dependencies()


def test_every_licence_is_allowed(found):
    assert licences.problems(found) == []
    names = {one.name for one in found}
    assert {"torch", "numpy", "timm", "mmdet", "webdataset", "submitit", "av", "open-clip-torch"} <= names
    assert not any(name.startswith("unveil") for name in names)
    assert "pytest" not in names


def test_the_page_is_current_up_to_versions(found, root):
    written = (root / "docs" / "licences.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in written.splitlines() if line.startswith("| ")][1:]
    listed = {row[0].removeprefix("| "): (row[2], row[3].removesuffix(" |")) for row in rows}
    meant = {one.name: (one.licence, ", ".join(one.brought_by)) for one in found}
    assert listed == meant, "run `python tools/licences.py --write`"


def test_what_only_a_build_for_cuda_brings_is_left_out_and_nothing_else():
    """The page is the same wherever it is written; names as pip lists them beside PyTorch 2.13 for CUDA 13."""
    cuda = {"cuda-bindings", "cuda-toolkit", "nvidia-cublas", "nvidia-nccl-cu13", "triton"}
    ours = ["numpy", "open-clip-torch", "torch", "torchvision"]
    assert licences.without_cuda_build([*cuda, *ours]) == ours


def test_extras_are_named(found):
    brought = {one.name: one.brought_by for one in found}
    assert brought["av"] == ("pretrain[video]",)
    assert "masking" in brought["numpy"]
    assert brought["mmdet"] == ("evalharness[detection]",)


@pytest.mark.parametrize(
    "licence", ["unknown", "GPL-3.0-only", "AGPL-3.0", "LGPL-2.1", "MIT AND GPL-2.0", "CC-BY-NC-4.0", "Proprietary"]
)
def test_others_are_refused(found, licence):
    planted = licences.Dependency(name="planted", version="1", licence=licence, brought_by=("masking",))
    said = licences.problems([*found, planted])
    assert len(said) == 1
    assert "planted 1 (masking)" in said[0]


def test_one_of_two_licences_to_choose_from_is_enough(found):
    planted = licences.Dependency(name="planted", version="1", licence="GPL-2.0 OR MIT", brought_by=("masking",))
    assert licences.problems([*found, planted]) == []


def test_an_exception_that_nothing_needs_is_noticed(found):
    assert len(licences.problems([one for one in found if one.name != "tqdm"])) == 1


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ([("License-Expression", "Apache-2.0 OR MIT")], "Apache-2.0 OR MIT"),
        ([("License", "3-Clause BSD License")], "BSD-3-Clause"),
        ([("License", "UNKNOWN"), ("Classifier", "License :: OSI Approved :: MIT License")], "MIT"),
        ([("License", "Some text\nof many lines"), ("Classifier", "License :: OSI Approved :: BSD License")], "BSD"),
        ([("Classifier", "License :: OSI Approved :: GNU General Public License")], "GNU General Public License"),
        ([("License", "My own terms")], "My own terms"),
        ([("License", "UNKNOWN")], "unknown"),
        ([], "unknown"),
    ],
)  # fmt: skip
def test_licences_are_read_from_metadata(fields, licence):
    about = Message()
    for name, value in fields:
        about[name] = value
    assert licences.licence_of(about) == licence
