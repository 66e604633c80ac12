"""Chooses the reader for a file by its name."""

from glob import glob, has_magic
from pathlib import Path

from shards.errors import BadInput
from shards.scene.readers.arrays import open_array
from shards.scene.readers.cubes import open_cube
from shards.scene.readers.layer import Layer
from shards.scene.readers.raster import open_rasters

ARRAY_SUFFIXES = frozenset({".npy", ".mat"})
CUBE_SUFFIXES = frozenset({".zarr", ".nc", ".nc4", ".cdf"})


def find_files(folder: Path, patterns: tuple[str, ...], field: str) -> tuple[Path, ...]:
    """The files that paths and globs, relative to a folder, stand for; sorted, each once.

    Raises:
        BadInput: a path does not exist or a glob matches nothing.
    """
    found: set[Path] = set()
    for pattern in patterns:
        if has_magic(pattern):
            matches = [Path(match) for match in glob(str(folder / pattern), recursive=True)]  # noqa: PTH207  absolute patterns
        else:
            matches = [folder / pattern] if (folder / pattern).exists() else []
        if not matches:
            raise BadInput(f"{folder / pattern}: {field}: no such file")
        found.update(matches)
    return tuple(sorted(found))


def open_layer(paths: tuple[Path, ...], variable: str | None, nodata: float | None, field: str) -> Layer:
    """Opens files as one layer.

    Raises:
        BadInput: they cannot be read or do not agree; the message names the file.
    """
    single = [path for path in paths if path.suffix.lower() in ARRAY_SUFFIXES | CUBE_SUFFIXES]
    if single and len(paths) > 1:
        raise BadInput(f"{single[0]}: {field}: cannot be joined with other files; only rasters can")
    if single:
        open_single = open_array if single[0].suffix.lower() in ARRAY_SUFFIXES else open_cube
        return open_single(single[0], variable, nodata)
    if variable is not None:
        raise BadInput(f"{paths[0]}: {field}: variable {variable!r}: a raster has bands, not variables")
    return open_rasters(paths, nodata)
