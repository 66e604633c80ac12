"""The embedded default: an archive of the generated scene, for a first run with nothing at hand."""

from pathlib import Path
from typing import Final

from shards.build import build_archive
from shards.open_scene import open_scene
from shards.plan import ArchiveSettings

GENERATED_SCENE: Final = "synthetic"
GENERATED_ARCHIVE: Final = "runs/synthetic-archive"


def ensure_generated_archive(location: str) -> None:
    """Builds the generated scene's archive at its default place, where it is asked for and absent."""
    folder = Path(location)
    if location == GENERATED_ARCHIVE and not folder.exists():
        build_archive([open_scene(GENERATED_SCENE)], folder, ArchiveSettings())
