"""Public sets by name, fetched by the package rs-fusion-datasets (the extra `public`)."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from shards.errors import BadInput, FailedRun
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes, Labels, Values


@dataclass(frozen=True)
class PublicSet:
    """How the package gives a set.

    Attributes:
        fetcher: the package's function: hyperspectral and second array (band, row, col), label maps, information.
        second: what the second array is.
        maps: the label maps it gives, in order: `train`, `test` (an official split) or `all`.
        wavelengths: whether its wavelengths are the sensor's; for some sets the package itself calls them a guess.
    """

    fetcher: str
    second: str
    maps: tuple[str, ...]
    wavelengths: bool = True


PUBLIC_SETS: Mapping[str, PublicSet] = MappingProxyType(
    {
        "houston2013": PublicSet("fetch_houston2013", "lidar", ("train", "test")),
        "trento": PublicSet("fetch_trento", "lidar", ("all",)),
        "muufl": PublicSet("fetch_muufl", "lidar", ("all",)),
        "augsburg": PublicSet("fetch_augsburg_ouc", "sar", ("train", "test", "all"), wavelengths=False),
        "berlin": PublicSet("fetch_berlin_ouc", "sar", ("train", "test", "all"), wavelengths=False),
        "houston2018": PublicSet("fetch_houston2018_ouc", "lidar", ("train", "test", "all")),
    }
)


def open_public_set(name: str) -> ArrayScene:
    """Fetches a public set, or takes it from where the package keeps it.

    Raises:
        BadInput: the package is not installed.
        FailedRun: the set cannot be fetched, or is not as the package promises.
    """
    try:
        import rs_fusion_datasets
    except ImportError as error:
        raise BadInput(f"{name}: a public set needs the extra: pip install 'diffclip-dist[public]'") from error
    known = PUBLIC_SETS[name]
    try:
        hsi, second, *maps, info = getattr(rs_fusion_datasets, known.fetcher)()
        by_name = {part: _dense(ids) for part, ids in zip(known.maps, maps, strict=True)}
        return _scene(name, known, _bands_last(hsi), _bands_last(second), by_name, info)
    except BadInput:
        raise
    except Exception as error:  # the package downloads, unpacks and reads, and each may fail in its own way
        raise FailedRun(f"{name}: cannot be fetched: {type(error).__name__}: {error}") from error


def _scene(
    name: str, known: PublicSet, hsi: Values, second: Values, maps: dict[str, Labels], info: Mapping[str, Any]
) -> ArrayScene:
    split = (maps["train"], maps["test"]) if "train" in maps else None
    # the split decides where it speaks: the map of all pixels may have been drawn anew
    labels = np.maximum(*split) if split else maps["all"]
    names = {int(number): str(text).strip().lower() for number, text in dict(info["label_name"]).items()}
    wavelengths = tuple(float(centre) for centre in info["wavelength"]) if known.wavelengths else ()
    return ArrayScene(
        name=name,
        values={"hsi": hsi, known.second: second},
        wavelengths_nm={"hsi": wavelengths} if len(wavelengths) == hsi.shape[2] else {},
        classes=Classes(names, official_split=split is not None),
        labels=labels,
        split=split,
    )


def _bands_last(array: Any) -> Values:
    """(band, row, col) to (row, col, band); float64 becomes float32 where that holds every value exactly."""
    values = np.ascontiguousarray(np.moveaxis(np.atleast_3d(np.asarray(array)), 0, -1))
    if values.dtype == np.float64:
        with np.errstate(over="ignore"):
            narrow = values.astype(np.float32)
        if np.array_equal(narrow, values, equal_nan=True):
            return narrow
    return values


def _dense(ids: Any) -> Labels:
    dense = ids.toarray() if hasattr(ids, "toarray") else np.asarray(ids)
    return np.where(dense > 0, dense, 0).astype(np.uint16)
