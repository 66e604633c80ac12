"""Finds files and chooses the reader for them by their names."""

import re
from collections.abc import Mapping
from glob import escape, glob, has_magic
from pathlib import Path

from shards.errors import BadInput
from shards.scene.products.known_products import KNOWN, choose_layer, product_layers
from shards.scene.readers.arrays import HDF5_SUFFIXES, open_array
from shards.scene.readers.cubes import band_variables, open_cube
from shards.scene.readers.layer import Given, Layer
from shards.scene.readers.raster import open_rasters
from shards.scene.readers.stacked import stack

ARRAY_SUFFIXES = frozenset({".npy", ".mat", *HDF5_SUFFIXES})
CUBE_SUFFIXES = frozenset({".zarr", ".nc", ".nc4", ".cdf"})


def find_files(folder: Path, patterns: tuple[str, ...], field: str) -> tuple[Path, ...]:
    """The files that paths and globs, relative to a folder, stand for; sorted, each once.

    The folder's own name is never a glob, and neither is a name in a pattern that exists as it is written.

    Raises:
        BadInput: a path does not exist or a glob matches nothing.
    """
    found: set[Path] = set()
    for pattern in patterns:
        matches = _matches(folder, pattern)
        if not matches:
            raise BadInput(f"{folder / pattern}: {field}: no such file")
        found.update(matches)
    return tuple(sorted(found))


def _matches(folder: Path, pattern: str) -> list[Path]:
    parts = list(Path(pattern).parts)
    while parts and (folder / parts[0]).exists():
        folder /= parts.pop(0)
    if not parts:
        return [folder]
    rest = str(Path(*parts))
    if not has_magic(rest):
        return []
    # where a bracket is no set of characters but a part of a name, it is tried as it is written
    literal_brackets = re.sub(r"\[", "[[]", rest)
    for form in (rest, literal_brackets):
        if matches := glob(f"{escape(str(folder))}/{form}", recursive=True):  # noqa: PTH207  pathlib has no escape
            return [Path(match) for match in matches]
    return []


def open_layer(
    paths: tuple[Path, ...], variable: str | None, given: Given, field: str, covering: str | None = None
) -> Layer:
    """Opens files as one layer.

    Args:
        paths: the files.
        variable: inside the file, where it holds several.
        given: what scene.yaml says where the files say nothing.
        field: of scene.yaml, for messages.
        covering: what to do where one of several files covers another wholly, for the message; None allows it.

    Raises:
        BadInput: they cannot be read or do not agree; the message names the file.
    """
    if len(paths) == 1 and (layers := product_layers(paths[0], given, field)) is not None:
        return choose_layer(layers, variable, paths[0], field)
    for path in paths:
        if path.is_dir() and path.suffix.lower() not in CUBE_SUFFIXES:
            raise BadInput(f"{path}: {field}: is a folder; expected files, or one folder of a product: {KNOWN}")
        if path.suffix.lower() == ".npz":
            raise BadInput(f"{path}: {field}: holds several arrays; save the wanted one alone as .npy (numpy.save)")
    single = [path for path in paths if path.suffix.lower() in ARRAY_SUFFIXES | CUBE_SUFFIXES]
    if single and len(paths) > 1:
        raise BadInput(f"{single[0]}: {field}: cannot be joined with other files; only rasters can")
    if single and single[0].suffix.lower() in CUBE_SUFFIXES and (names := band_variables(single[0], variable)):
        return stack({name: open_cube(single[0], name, given, field) for name in names}, "nearest", field)
    if single:
        open_single = open_array if single[0].suffix.lower() in ARRAY_SUFFIXES else open_cube
        return open_single(single[0], variable, given, field)
    if variable is not None:
        raise BadInput(f"{paths[0]}: {field}: variable {variable!r}: a raster has bands, not variables")
    layer = open_rasters(paths, given, field)
    if covering is not None and (pair := layer.wholly_covered()) is not None:
        raise BadInput(f"{pair[1]}: {field}: one of it and {pair[0].name} covers the other wholly; {covering}")
    return layer


def open_stack(
    files: Mapping[str, tuple[Path, ...]],
    variable: str | None,
    given: Given,
    method: str,
    field: str,
    covering: str | None,
) -> Layer:
    """Opens files as the bands of one layer, in their order.

    Args:
        files: by the band's name; several files of one band are a mosaic.
        variable, given, field, covering: as of `open_layer`.
        method: name of the rasterio resampling for files on another grid than the finest.

    Raises:
        BadInput: they cannot be read or do not agree; the message names the file.
    """
    layers = {name: open_layer(paths, variable, given, f"{field}.{name}", covering) for name, paths in files.items()}
    return stack(layers, method, field)
