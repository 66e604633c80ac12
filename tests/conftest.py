"""What every test may use."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real scenes; a test that asks for it skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFCLIP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real scenes are not at {folder}; set DIFFCLIP_DATA to their folder")
    return folder
