"""The default archive: one of the generated scene, for a first run with nothing at hand.

What builds and opens archives takes seconds to import, so each function imports it: a command's --help names the
archive and needs neither.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shards.archive.manifest import Manifest

GENERATED_SCENE: Final = "synthetic"
GENERATED_ARCHIVE: Final = "runs/synthetic-archive"


def known_manifest(location: str) -> Manifest:
    """An archive's manifest, without writing anything: the generated scene's is worked out in memory where absent.

    Raises:
        BadInput: there is no archive at any other place.
    """
    if location == GENERATED_ARCHIVE and not Path(location).exists():
        return _generated_manifest()
    from shards.archive.archive import Archive

    return Archive.open(location).manifest


@cache
def _generated_manifest() -> Manifest:
    return _build("memory://generated-scene")


def ensure_generated_archive(location: str) -> None:
    """Builds the generated scene's archive at its default place, where it is asked for and absent."""
    folder = Path(location)
    if location == GENERATED_ARCHIVE and not folder.exists():
        _build(folder)


def _build(location: str | Path) -> Manifest:
    from shards.archive.tiling import ArchiveSettings
    from shards.build.build_archive import build_archive
    from shards.open_scene import open_scene

    return build_archive([open_scene(GENERATED_SCENE)], location, ArchiveSettings())
