import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the clone."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images: UNVEIL_DATA, or ../shared/data/pack beside the clone; mark its users `data`."""
    named = os.environ.get("UNVEIL_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data" / "pack"
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"UNVEIL_DATA={named} is not a folder; name a folder of real images or unset it")
    pytest.skip("no real images: set UNVEIL_DATA, or put the pack at ../shared/data/pack")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole road first: last, it would run for minutes while the other worker has nothing left to do."""
    items.sort(key=lambda item: not item.nodeid.startswith("tests/road/"))
