"""The few-shot commands run as a user runs them, and one small study."""

from pathlib import Path

import pytest
from small_study import Study, build, command, write_encoder, write_small_scene

from shards.archive.archive import Archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One labelled scene, ``town``, and the same place without labels, ``plain``."""
    folder = tmp_path_factory.mktemp("archive")
    scenes = [write_small_scene(folder / "town", "town"), write_small_scene(folder / "plain", "plain", labels=False)]
    return build([str(scene) for scene in scenes], folder / "built")


@pytest.fixture(scope="session")
def encoder(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder for both scenes."""
    return write_encoder(archive, "town", tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="session")
def study(archive: Archive, encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two counts of shots and three seeds."""
    out = tmp_path_factory.mktemp("study") / "study"
    arguments = ("--archive", archive.location, "--encoder", encoder, "--shots", "4,1", "--seeds", 3, "--out", out)
    return Study(out, arguments, command("fewshot.py", *arguments))
