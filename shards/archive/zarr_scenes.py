"""A scene as a Zarr v3 group, after the CF conventions: arrays of modalities (y, x, band), labels, coordinates, CRS."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import rasterio
import zarr
from zarr.errors import ZarrUserWarning

from shards.archive.codecs import check_storage, sharded
from shards.archive.tiling import ArchiveSettings
from shards.scene.source import Classes, Modality

LABELS = "labels"
SPLIT_TRAIN, SPLIT_TEST = "split_train", "split_test"
LABEL_MISSING = 0


@dataclass(frozen=True)
class StoredModality:
    """A modality with the dtype and the missing value in which it is stored."""

    modality: Modality
    dtype: str
    missing_value: float | int


@dataclass(frozen=True)
class SceneLayout:
    """What is known of a stored scene before its pixels are read."""

    name: str
    height: int
    width: int
    modalities: tuple[StoredModality, ...]
    classes: Classes | None
    crs_wkt: str | None
    transform: tuple[float, float, float, float, float, float] | None
    generated: bool
    settings: ArchiveSettings

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel over all modalities."""
        return sum(stored.modality.bands * np.dtype(stored.dtype).itemsize for stored in self.modalities)


def create_zarr_scene(folder: Path, layout: SceneLayout) -> zarr.Group:
    """Writes the group's metadata and coordinates, and arrays without chunks, into an empty folder."""
    attributes: dict[str, Any] = {"title": layout.name, "generated": layout.generated}
    coordinates = [name for name, _, _ in _coordinates(layout)]
    if layout.crs_wkt is not None:
        coordinates.append("spatial_ref")
    if coordinates:
        attributes["coordinates"] = " ".join(coordinates)
    group = zarr.create_group(folder, zarr_format=3, attributes=attributes)
    for stored in layout.modalities:
        _create_modality(group, stored, layout)
    if layout.classes is not None:
        names = dict(sorted(layout.classes.names.items()))
        flags: dict[str, Any] = {
            "flag_values": list(names),
            "flag_meanings": " ".join(name.replace(" ", "_") for name in names.values()),
        }
        if layout.classes.id_shift:  # readers that know CF give the user's own ids, and NaN for unlabelled
            flags |= {"_FillValue": LABEL_MISSING, "add_offset": -layout.classes.id_shift}
        _create_map(group, LABELS, layout, {"long_name": "class id, 0 is unlabelled", **flags})
        if layout.classes.official_split:
            _create_map(group, SPLIT_TRAIN, layout, {"long_name": "official training pixels, class id", **flags})
            _create_map(group, SPLIT_TEST, layout, {"long_name": "official test pixels, class id", **flags})
    for name, dimension, values in _coordinates(layout):
        array = group.create_array(
            name,
            shape=values.shape,
            dtype=values.dtype,
            chunks=values.shape,
            dimension_names=(dimension,),
            compressors=None,
            filters=None,
            attributes=_coordinate_attributes(name),
        )
        array[...] = values
    if layout.crs_wkt is not None:
        _create_spatial_ref(group, layout)
    with warnings.catch_warnings():
        # consolidated metadata lets xarray open a scene in a store with one request
        warnings.filterwarnings("ignore", category=ZarrUserWarning)
        return zarr.consolidate_metadata(group.store, zarr_format=3)


def open_zarr_scene(store: Any) -> zarr.Group:
    """Opens a scene's group for reading."""
    return zarr.open_group(store, mode="r", zarr_format=3)


def array_of(group: zarr.Group, name: str) -> "zarr.Array[Any]":
    """An array of a group."""
    return cast("zarr.Array[Any]", group[name])


def read_part(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: str, place: tuple[slice, slice]
) -> npt.NDArray[Any]:
    """Rows and columns of an array. Shape, dtype and storage are checked before memory is allocated.

    Raises:
        ValueError: shape or dtype differ from the manifest's, or the array is not stored as archives are.
    """
    array = array_of(group, name)
    if array.shape != shape or array.dtype != np.dtype(dtype):
        raise ValueError(f"{name}: {array.dtype} in shape {array.shape}, expected {dtype} in shape {shape}")
    check_storage(name, array.metadata, array.dtype.itemsize)
    return np.asarray(array[place])


def _create_modality(group: zarr.Group, stored: StoredModality, layout: SceneLayout) -> None:
    modality = stored.modality
    attributes: dict[str, Any] = {
        "missing_value": "NaN" if stored.missing_value != stored.missing_value else stored.missing_value
    }
    if stored.missing_value == stored.missing_value:
        attributes["_FillValue"] = stored.missing_value
    if modality.fwhm_nm is not None:
        attributes["fwhm_nm"] = list(modality.fwhm_nm)
    if modality.bad_bands:
        attributes["bad_bands"] = list(modality.bad_bands)
    _create_array(
        group,
        modality.name,
        layout,
        np.dtype(stored.dtype),
        stored.missing_value,
        (modality.bands,),
        ("y", "x", f"{modality.name}_band"),
        attributes,
    )


def _create_map(group: zarr.Group, name: str, layout: SceneLayout, attributes: dict[str, Any]) -> None:
    _create_array(group, name, layout, np.dtype(np.uint16), LABEL_MISSING, (), ("y", "x"), attributes)


def _create_array(
    group: zarr.Group,
    name: str,
    layout: SceneLayout,
    dtype: np.dtype[np.generic],
    fill_value: float,
    bands: tuple[int, ...],
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> None:
    if layout.crs_wkt is not None:
        attributes = {**attributes, "grid_mapping": "spatial_ref"}
    size = layout.settings.tile_size
    tall, wide = layout.settings.shard_shape
    group.create_array(
        name,
        shape=(layout.height, layout.width, *bands),
        dtype=dtype,
        chunks=(tall * size, wide * size, *bands),
        fill_value=fill_value,
        serializer=sharded(dtype, (size, size, *bands)),
        compressors=None,
        filters=None,
        dimension_names=dimensions,
        attributes=attributes,
    )


def _coordinates(layout: SceneLayout) -> list[tuple[str, str, npt.NDArray[np.floating[Any]]]]:
    """Name, dimension and values of each coordinate that is known: pixel centres and wavelengths."""
    found: list[tuple[str, str, npt.NDArray[np.floating[Any]]]] = []
    if layout.transform is not None:
        a, b, c, d, e, f = layout.transform
        if b == 0 and d == 0:  # a rotated grid has no coordinate vectors; its transform stands in spatial_ref
            found.append(("y", "y", e * (np.arange(layout.height) + 0.5) + f))
            found.append(("x", "x", a * (np.arange(layout.width) + 0.5) + c))
    for stored in layout.modalities:
        modality = stored.modality
        if modality.wavelengths_nm is not None:
            found.append((f"{modality.name}_wavelength", f"{modality.name}_band", np.array(modality.wavelengths_nm)))
    return found


def _coordinate_attributes(name: str) -> dict[str, Any]:
    if name in ("x", "y"):
        return {"standard_name": f"projection_{name}_coordinate", "axis": name.upper()}
    return {"standard_name": "radiation_wavelength", "units": "nm"}


def _create_spatial_ref(group: zarr.Group, layout: SceneLayout) -> None:
    assert layout.crs_wkt is not None
    attributes: dict[str, Any] = {"crs_wkt": layout.crs_wkt, "spatial_ref": layout.crs_wkt}
    if layout.transform is not None:
        a, b, c, d, e, f = layout.transform
        attributes["GeoTransform"] = " ".join(repr(float(value)) for value in (c, a, b, f, d, e))
    if (epsg := rasterio.CRS.from_wkt(layout.crs_wkt).to_epsg()) is not None:
        attributes["epsg"] = epsg
    group.create_array("spatial_ref", shape=(), dtype=np.int64, attributes=attributes, compressors=None, filters=None)[
        ...
    ] = 0
