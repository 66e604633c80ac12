"""The scale and offset that apply to a file, and the type of the physical values."""

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.layer import Given
from shards.scene.source import Scaling


def scaled_dtype(dtype: np.dtype[np.generic], scaling: Scaling | None) -> np.dtype[np.generic]:
    """The dtype of physical values: the file's own without scaling, else the float that loses nothing."""
    if scaling is None:
        return dtype
    return np.dtype(np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64)


def chosen_scaling(own: Scaling | None, given: Given, bands: int, where: str) -> Scaling | None:
    """The scaling of one file: its own, or what scene.yaml gives; None where values stay as they are.

    Raises:
        BadInput: both are there and differ.
    """
    told = given.scaling(bands)
    if own is not None and told is not None and not same_scaling(own, told):
        raise BadInput(
            f"{where}: scale, offset: the file's own are {own.scale[0]:g}, {own.offset[0]:g} and scene.yaml gives "
            f"{told.scale[0]:g}, {told.offset[0]:g}; leave `scale` and `offset` out, or correct the file's tags"
        )
    if own is not None and not (np.isfinite([own.scale, own.offset]).all() and np.all(own.scale)):
        raise BadInput(
            f"{where}: scale {own.scale[0]:g}, offset {own.offset[0]:g} in the file; expected finite ones, not 0"
        )
    chosen = own or told
    return None if chosen is None or is_identity(chosen) else chosen


def same_scaling(one: Scaling, other: Scaling) -> bool:
    """Whether two scalings do the same, whatever files carry them."""
    return len(one.scale) == len(other.scale) and bool(
        np.allclose((one.scale, one.offset), (other.scale, other.offset), rtol=1e-6, atol=0)
    )


def identity(bands: int) -> Scaling:
    """The scaling that leaves all values as they are."""
    return Scaling((1.0,) * bands, (0.0,) * bands)


def is_identity(scaling: Scaling) -> bool:
    """Whether a scaling leaves all values as they are."""
    return set(scaling.scale) == {1.0} and set(scaling.offset) == {0.0}
