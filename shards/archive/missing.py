"""The value that marks a missing pixel in an array, in place of a separate mask."""

from collections.abc import Iterator

import numpy as np

from shards.scene.source import Mask, Modality, Values

_WIDER = {"int8": "int16", "uint8": "int16", "int16": "int32", "uint16": "int32", "int32": "int64", "uint32": "int64"}


def missing_candidates(modality: Modality) -> Iterator[tuple[np.dtype[np.generic], float | int]]:
    """Dtypes and missing values in which a modality can be stored, the best first.

    Floats take NaN. Integers take the nodata of their files where it is declared, else an end of their range, else the
    lowest value of a wider type. If a valid pixel holds the missing value in every band (`holds_missing_value`), the
    builder takes the next candidate.
    """
    dtype = np.dtype(modality.dtype)
    if dtype.kind == "f":
        yield dtype, float("nan")
        return
    if modality.nodata is not None:
        yield dtype, modality.nodata
        return
    limits = np.iinfo(dtype)
    ends = (limits.min, limits.max) if dtype.kind == "i" else (limits.max, limits.min)
    yield from ((dtype, int(end)) for end in ends)
    if dtype.name in _WIDER:
        wider = np.dtype(_WIDER[dtype.name])
        yield wider, int(np.iinfo(wider).min)


def valid_mask(stored: Values, missing_value: float) -> Mask:
    """True (row, col) where stored values (row, col, band) are not missing."""
    if stored.dtype.kind == "f":
        return np.asarray(~np.isnan(stored[..., 0]))
    missing = np.asarray(stored[..., 0] == missing_value)
    if stored.shape[-1] > 1:
        missing[missing] = (stored[missing] == missing_value).all(axis=-1)
    return ~missing


def holds_missing_value(stored: Values, valid: Mask, missing_value: float) -> bool:
    """Whether a valid pixel holds the missing value in every band, and so would be read as missing."""
    return bool((valid & ~valid_mask(stored, missing_value)).any())
