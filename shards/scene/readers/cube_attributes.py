"""What the attributes of a NetCDF or Zarr variable say of its values, by the CF conventions (1.11, 2.5.1 and 8.1)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from shards.scene.readers.missing_values import MissingValues
from shards.scene.source import Scaling

NODATA_NAMES = ("_FillValue", "missing_value", "fill_value", "nodata", "NoData")


def cube_missing(attributes: Mapping[str, Any], bands: int, given: float | None) -> MissingValues:
    """Missing values and valid range, as stored (before scale and offset).

    Args:
        attributes: of the variable.
        bands: number of bands.
        given: nodata of scene.yaml, which takes the place of the file's own.
    """
    if given is not None:
        nodata: tuple[float, ...] = (given,)
    else:
        nodata = tuple(dict.fromkeys(value for name in NODATA_NAMES for value in _numbers(attributes.get(name))))
    lowest, highest = -np.inf, np.inf
    valid_range = _numbers(attributes.get("valid_range"))
    if len(valid_range) == 2:
        lowest, highest = valid_range
    lowest = max([lowest, *_numbers(attributes.get("valid_min"))[:1]])
    highest = min([highest, *_numbers(attributes.get("valid_max"))[:1]])
    return MissingValues((nodata,) * bands if nodata else (), lowest, highest)


def cube_scaling(attributes: Mapping[str, Any], bands: int) -> Scaling | None:
    """`scale_factor` and `add_offset`; None where neither is there or they change nothing."""
    scale = (_numbers(attributes.get("scale_factor")) or (1.0,))[0]
    offset = (_numbers(attributes.get("add_offset")) or (0.0,))[0]
    return None if (scale, offset) == (1.0, 0.0) else Scaling((scale,) * bands, (offset,) * bands)


def unsigned(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> np.dtype[Any]:
    """The dtype that is meant: NetCDF 3 has no unsigned types and marks them by `_Unsigned`."""
    meant = dtype.kind == "i" and str(attributes.get("_Unsigned", "")).lower() == "true"
    return np.dtype(f"u{dtype.itemsize}") if meant else dtype


def _numbers(value: Any) -> tuple[float, ...]:
    """The numbers of an attribute; none where it is absent or text that is no number."""
    if value is None:
        return ()
    try:
        return tuple(float(number) for number in np.asarray(value).ravel())
    except (TypeError, ValueError):
        return ()
