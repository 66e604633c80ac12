"""The embedded default: an archive of the generated scene, for a first run with nothing at hand."""

from functools import cache
from pathlib import Path
from typing import Final

from shards.archive.archive import Archive
from shards.archive.manifest import Manifest
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.source import SceneSource

GENERATED_SCENE: Final = "synthetic"
GENERATED_ARCHIVE: Final = "runs/synthetic-archive"


def known_manifest(location: str) -> Manifest:
    """An archive's manifest, without writing anything: the generated scene's is worked out in memory where absent.

    Raises:
        BadInput: there is no archive at any other place.
    """
    if location == GENERATED_ARCHIVE and not Path(location).exists():
        return _generated_manifest()
    return Archive.open(location).manifest


@cache
def _generated_manifest() -> Manifest:
    return build_archive([_generated_scene()], "memory://generated-scene", ArchiveSettings())


def ensure_generated_archive(location: str) -> None:
    """Builds the generated scene's archive at its default place, where it is asked for and absent."""
    folder = Path(location)
    if location == GENERATED_ARCHIVE and not folder.exists():
        build_archive([_generated_scene()], folder, ArchiveSettings())


def _generated_scene() -> SceneSource:
    from shards.open_scene import open_scene  # its readers take seconds to import, and a run on an archive does without

    return open_scene(GENERATED_SCENE)
