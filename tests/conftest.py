"""What every test may use."""

import os
from pathlib import Path

import pytest

from shards.build import build_archive
from shards.plan import ArchiveSettings
from shards.synthetic import GeneratedScene, GeneratedSceneSpec


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real scenes; a test that asks for it skips where it is absent."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("DIFFCLIP_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"the real scenes are not at {folder}; set DIFFCLIP_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def generated_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of one small generated scene: 48x56 pixels, 12 bands and a height with holes, tiles of 16."""
    folder = tmp_path_factory.mktemp("generated") / "archive"
    spec = GeneratedSceneSpec(name="small", height=48, width=56, bands=12)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings(tile_size=16, halo=5))
    return folder
