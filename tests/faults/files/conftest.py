"""Whole specimens of everything that is read, made once."""

import pytest
from good_files import Specimens


@pytest.fixture(scope="session")
def specimens(tmp_path_factory) -> Specimens:
    """Runs, checkpoints, results and data, each made when it is first asked for; shared: do not write into them."""
    return Specimens(tmp_path_factory.mktemp("specimens"))
