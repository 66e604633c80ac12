"""Whether two layers lie, pixel on pixel, on one grid."""

from collections.abc import Iterable

import numpy as np
import rasterio

from shards.errors import BadInput
from shards.scene.readers.layer import Affine6, Given, Layer

# pixels; corners that differ by less lie on one grid
GRID_TOLERANCE = 0.01
RESAMPLE = "write `resample: nearest` beside its files (for values, bilinear, cubic or average too) to bring it there"


def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two systems, given as WKT, are one."""
    if one is None or other is None or one == other:
        return one == other
    return bool(rasterio.CRS.from_wkt(one) == rasterio.CRS.from_wkt(other))


def other_crs(found: str | None, first_name: str) -> str:
    """What is wrong with a CRS that is not the expected one, as the end of a message."""
    if found is None:
        return f"carries no CRS, and {first_name} does; give it as `crs`, such as `crs: EPSG:32633`"
    return f"another CRS than {first_name}"


def check_same_grid(first: Layer, layer: Layer, field_name: str, first_name: str) -> None:
    """Refuses a layer that does not lie, pixel on pixel, on the first one.

    Raises:
        BadInput: shape, CRS or transform differ.
    """
    one, other = first.grid, layer.grid
    start = f"{layer.files}: {field_name}:"
    both_placed = None not in (one.transform, other.transform, one.crs_wkt, other.crs_wkt)
    remedy = RESAMPLE if both_placed else "bring it onto that grid first"
    if (other.height, other.width) != (one.height, one.width):
        raise BadInput(
            f"{start} {other.height}x{other.width} pixels, expected the grid of {first_name}, "
            f"{one.height}x{one.width}; {remedy}"
        )
    if one.transform is None or other.transform is None:
        for curved, placed, files in ((one, other, first.files), (other, one, layer.files)):
            if curved.curved and placed.transform is not None:
                raise BadInput(
                    f"{files}: placed by two-dimensional latitude and longitude alone, and other files lie on a grid; "
                    "warp it onto that grid first (gdalwarp -geoloc)"
                )
        return
    if not same_crs(one.crs_wkt, other.crs_wkt):
        if one.crs_wkt is None:
            raise BadInput(f"{first.files}: {other_crs(None, layer.files)}")
        known = f"; {remedy}" if other.crs_wkt is not None else ""
        raise BadInput(f"{start} {other_crs(other.crs_wkt, first_name)}{known}")
    pixel = max(abs(one.transform[0]), abs(one.transform[1]), abs(one.transform[3]), abs(one.transform[4]))
    corners = np.array([[0, 0, 1], [one.width, 0, 1], [0, one.height, 1]], dtype=np.float64)
    moved = corners @ (np.array(other.transform) - np.array(one.transform)).reshape(2, 3).T
    if np.abs(moved).max() > GRID_TOLERANCE * pixel:
        raise BadInput(f"{start} another grid (origin or resolution) than {first_name}; {remedy}")


def checked_crs(own: str | None, transform_known: bool, given: Given, where: str) -> str | None:
    """The CRS of a file: its own, else the given one where the file says where its pixels lie in it.

    Args:
        own: as WKT, None where the file carries none.
        transform_known: whether the file carries a transform or coordinates.
        given: what scene.yaml says.
        where: file and field, for messages.

    Raises:
        BadInput: the file's own is another one, or it cannot be placed by a CRS alone.
    """
    if given.crs_wkt is None:
        return own
    if own is not None and given.crs_is_theirs and not same_crs(own, given.crs_wkt):
        raise BadInput(f"{where}.crs: the file's own CRS is another one; leave `crs` out or correct the file")
    if not transform_known:
        if given.crs_is_theirs:
            raise BadInput(f"{where}.crs: the file carries no transform, so that a CRS alone does not place it")
        return own
    return own or given.crs_wkt


def checked_transform(coefficients: Iterable[float], where: str) -> Affine6:
    """An affine transform (a, b, c, d, e, f) that places each pixel at a place of its own.

    Raises:
        BadInput: its coefficients are not finite, or it places all pixels on one line or point.
    """
    a, b, c, d, e, f = (float(value) for value in coefficients)
    if not np.isfinite((a, b, c, d, e, f)).all() or a * e - b * d == 0:
        raise BadInput(
            f"{where}: its geotransform {(c, a, b, f, d, e)} places no pixels; correct it (gdal_edit.py -a_ullr) or "
            "take it out (gdal_edit.py -unsetgt)"
        )
    return (a, b, c, d, e, f)
