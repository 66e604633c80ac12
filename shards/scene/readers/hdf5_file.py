"""Opens HDF5 files; damage in one is reported as bad input."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shards.errors import BadInput


@contextmanager
def open_hdf5(path: Path, field: str | None = None) -> Iterator[h5py.File]:
    """A file that is open for reading.

    Args:
        path: the file.
        field: of scene.yaml, for messages.

    Raises:
        BadInput: it is not HDF5, or damaged where it is read.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BadInput:
        raise
    except (OSError, RuntimeError, KeyError) as error:  # h5py raises each of these for damage
        where = f"{path}: {field}" if field else str(path)
        raise BadInput(f"{where}: cannot be read as HDF5: {error}") from error


def numbers_in(value: Any, count: int, where: str) -> tuple[float, ...]:
    """The finite numbers of an attribute or a small array.

    Args:
        value: as h5py gives it.
        count: how many are expected.
        where: file, field and name, for messages.

    Raises:
        BadInput: they are more, fewer, or no finite numbers.
    """
    try:
        found = np.asarray(value, dtype=np.float64).ravel()
    except (TypeError, ValueError):
        raise BadInput(f"{where}: {value!r}, expected {count} numbers") from None
    if len(found) != count:
        raise BadInput(f"{where}: {len(found)} values, expected {count}")
    if not np.isfinite(found).all():
        raise BadInput(f"{where}: expected finite numbers")
    return tuple(found.tolist())
