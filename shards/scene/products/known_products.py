"""Recognises a product by what its folder or file holds."""

from collections.abc import Callable
from pathlib import Path

from shards.errors import BadInput
from shards.scene.products.dlr_products import dlr_layers
from shards.scene.products.emit import emit_layers
from shards.scene.products.hdf5_cube import Hdf5Cube
from shards.scene.products.landsat import landsat_layers
from shards.scene.products.neon import neon_layers
from shards.scene.products.prisma import prisma_layers
from shards.scene.products.sentinel2 import sentinel2_layers
from shards.scene.readers.layer import Given, Layer

Opener = Callable[[Path, Given, str], dict[str, Layer] | None]

OF_FOLDERS: tuple[Opener, ...] = (sentinel2_layers, landsat_layers, dlr_layers)
OF_FILES: tuple[Opener, ...] = (prisma_layers, emit_layers, neon_layers)
FILE_SUFFIXES = (".he5", ".nc", ".h5")
KNOWN = "Sentinel-2 SAFE, Landsat Collection 2, EnMAP, DESIS, PRISMA (.he5), EMIT (.nc) or NEON (.h5)"


def product_layers(path: Path, given: Given, field: str) -> dict[str, Layer] | None:
    """The layers of a product by their names; None where the path is no known product.

    A folder that holds one PRISMA, EMIT or NEON file stands for it.

    Raises:
        BadInput: it is a known product and lacks what its specification asks for.
    """
    if path.is_file():
        return _first(OF_FILES, path, given, field)
    if not path.is_dir() or path.suffix.lower() == ".zarr":
        return None
    layers = _first(OF_FOLDERS, path, given, field)
    if layers is None:
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in FILE_SUFFIXES)
        found = [opened for file in files if (opened := _first(OF_FILES, file, given, field)) is not None]
        layers = found[0] if len(found) == 1 else None
    return layers


def choose_layer(layers: dict[str, Layer], variable: str | None, path: Path, field: str) -> Layer:
    """One layer of a product, by its name or the path that it has in its file.

    Raises:
        BadInput: there is no such layer, or several and none is named.
    """
    wanted = None if variable is None else variable.strip("/")
    for name, layer in layers.items():
        inside = layer.variable if isinstance(layer, Hdf5Cube) else name
        if wanted in (name, inside, inside.rpartition("/")[2]) or (wanted is None and len(layers) == 1):
            return layer
    what = "expected `variable`" if variable is None else f"variable {variable!r} is not in it"
    raise BadInput(f"{path}: {field}: {what}; it holds: {', '.join(layers)}")


def _first(openers: tuple[Opener, ...], path: Path, given: Given, field: str) -> dict[str, Layer] | None:
    for open_layers in openers:
        if (layers := open_layers(path, given, field)) is not None:
            return layers
    return None
