"""Scenes as Python users hold them, and results in the same form: NumPy in, NumPy out; xarray in, xarray out."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xarray

from shards.archive.archive import ReadableScene, Scene, StoredScene
from shards.archive.zarr_scenes import LABELS, SPLIT_TEST, SPLIT_TRAIN
from shards.build.load_scene import load_scene
from shards.errors import BadInput
from shards.scene.array_scene import ArrayScene
from shards.scene.source import SceneSource
from shards.scene.xarray_scene import spatial_axes, variables, xarray_scene

Arrays = Mapping[str, npt.NDArray[Any]]
XarrayScene = xarray.Dataset | xarray.DataArray
SceneLike = ReadableScene | XarrayScene | Arrays
Raster = npt.NDArray[Any] | xarray.DataArray

UNNAMED: Final = "scene"


def scene_source(scene: XarrayScene | Arrays, name: str) -> SceneSource:
    """A scene source over arrays in memory.

    Args:
        scene: an xarray Dataset with a variable a modality, a DataArray, or NumPy arrays (row, col) or (row, col, band)
            by modality; what is not finite is missing.
        name: name of the scene.

    Raises:
        BadInput: the modalities differ in shape, axes cannot be told, or labels stand among them.
    """
    named = variables(scene) if isinstance(scene, xarray.Dataset | xarray.DataArray) else scene
    # xarray.open_zarr gives an archive's labels beside its modalities, and features of labels would tell the classes
    if found := [one for one in (LABELS, SPLIT_TRAIN, SPLIT_TEST) if one in named]:
        raise BadInput(f"scene: {', '.join(found)}: labels among the modalities, expected modalities alone; drop them")
    if isinstance(scene, xarray.Dataset | xarray.DataArray):
        return xarray_scene(scene, name)
    arrays = {modality: np.asarray(values) for modality, values in scene.items()}
    return ArrayScene(name, {modality: a[..., None] if a.ndim == 2 else a for modality, a in arrays.items()})


def readable_scene(scene: SceneLike) -> ReadableScene:
    """A scene that can be read block by block; arrays get their statistics from their own valid pixels.

    Raises:
        BadInput: it is no scene, or cannot be used.
    """
    if isinstance(scene, Scene | StoredScene):
        return scene
    if isinstance(scene, xarray.Dataset | xarray.DataArray | Mapping):
        return load_scene(scene_source(scene, UNNAMED))
    raise BadInput(
        f"scene: expected a scene of an archive (archive['name']), an xarray Dataset or DataArray, or a dict of NumPy "
        f"arrays by modality, found {type(scene).__name__}"
    )


def like_scene(
    values: npt.NDArray[Any], scene: SceneLike, name: str, axis: tuple[str, list[Any]] | None = None
) -> Raster:
    """Values (row, col) or (row, col, ...) in the scene's form: a DataArray with its coordinates and CRS, or NumPy.

    Args:
        values: one for each pixel of the scene, or several.
        scene: what they were made from.
        name: of the DataArray.
        axis: name and coordinate of the last axis, where there are three.
    """
    if not isinstance(scene, xarray.Dataset | xarray.DataArray):
        return values
    first = next(iter(variables(scene).values()))
    spatial = spatial_axes(first)[:2]
    kept = {key: held for key, held in {**scene.coords, **first.coords}.items() if set(held.dims) <= {*spatial}}
    dims = spatial if axis is None else (*spatial, axis[0])
    coords = kept if axis is None else {**kept, axis[0]: axis[1]}
    return xarray.DataArray(values, dims=dims, coords=coords, name=name)
