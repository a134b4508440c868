"""Whole specimens of everything that is read, made once."""

from pathlib import Path

import good_files
import pytest
from fuzzing import Place


@pytest.fixture(scope="session")
def specimens(tmp_path_factory) -> Path:
    """Runs, checkpoints, results and data; shared: do not write into it."""
    folder = tmp_path_factory.mktemp("specimens")
    good_files.image_run(folder / "image")
    good_files.results_folder(folder / "eval")
    good_files.sweep_folder(folder / "sweep", folder / "image" / "run")
    good_files.labelled_images(folder / "labelled")
    good_files.coco_folder(folder / "coco")
    good_files.karpathy_file(folder / "karpathy")
    good_files.segmentation_folder(folder / "ade20k")
    good_files.checkpoint(folder / "pair", captions=("a red field", "a green field"))
    return folder


@pytest.fixture
def place(specimens, tmp_path) -> Place:
    return Place(good=specimens, scratch=tmp_path)
