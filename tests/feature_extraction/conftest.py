"""One small labelled scene."""

import pytest
from small_study import build, write_small_scene

from shards.archive.archive import Archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One labelled scene, ``town``."""
    folder = tmp_path_factory.mktemp("archive")
    return build([str(write_small_scene(folder / "town", "town"))], folder / "built")
