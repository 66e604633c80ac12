"""The default archive, of the generated scene, for a first run without data.

What builds and opens archives takes seconds to import, so each function imports it: a command's --help names the
archive and needs neither.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from shards.archive.archive import Archive

GENERATED_SCENE: Final = "synthetic"
GENERATED_ARCHIVE: Final = "runs/synthetic-archive"
_IN_MEMORY: Final = "memory://generated-scene"


def known_archive(location: str) -> Archive:
    """An archive, without writing a file: where the generated scene's is absent, one is built in memory.

    Raises:
        BadInput: there is no archive at any other place.
    """
    if location == GENERATED_ARCHIVE and not Path(location).exists():
        return _archive_in_memory()
    from shards.archive.archive import Archive

    return Archive.open(location, verify="size")


@cache
def _archive_in_memory() -> Archive:
    from shards.archive.archive import Archive

    _build(_IN_MEMORY)
    return Archive.open(_IN_MEMORY)


def ensure_generated_archive(location: str) -> None:
    """Builds the default archive if this is its location and it is absent."""
    folder = Path(location)
    if location == GENERATED_ARCHIVE and not folder.exists():
        _build(folder)


def _build(location: str | Path) -> None:
    from shards.archive.tiling import ArchiveSettings
    from shards.build.build_archive import build_archive
    from shards.open_scene import open_scene

    build_archive([open_scene(GENERATED_SCENE)], location, ArchiveSettings())
