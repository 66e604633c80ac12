"""The scene that benchmarks run on when none is given, labelled as generated in whatever they print."""

from pathlib import Path

from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec


def build_generated(folder: Path, tile_size: int) -> str:
    """An archive of a generated scene with the spectrometer and the height of Houston2013: 144 + 1 bands."""
    spec = GeneratedSceneSpec("generated-144", 8 * tile_size, 8 * tile_size, 144, 380.0, 1050.0)
    build_archive([GeneratedScene(spec)], folder, ArchiveSettings(tile_size))
    return str(folder)
