"""A small labelled scene in an archive, an encoder for it, and the same scene as xarray objects."""

from pathlib import Path

import numpy as np
import pytest
import xarray
from small_study import HEIGHT, WIDTH, build, write_encoder, write_small_scene

from shards.archive.archive import Archive


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """One labelled scene, ``town``."""
    folder = tmp_path_factory.mktemp("archive")
    return build([str(write_small_scene(folder / "town", "town"))], folder / "built")


@pytest.fixture(scope="session")
def encoder(archive: Archive, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small encoder for the scene."""
    return write_encoder(archive, "town", tmp_path_factory.mktemp("encoder") / "encoder")


@pytest.fixture(scope="session")
def arrays(archive: Archive) -> dict[str, np.ndarray]:
    """The scene as NumPy arrays, NaN where a pixel is missing."""
    return dict(archive.read_scene("town").values)


@pytest.fixture(scope="session")
def dataset(arrays: dict[str, np.ndarray]) -> xarray.Dataset:
    """The scene as xarray holds it: bands first, placed on a grid of 30 m."""
    place = {"y": 5_800_000.0 - 30.0 * np.arange(HEIGHT), "x": 500_000.0 + 30.0 * np.arange(WIDTH)}
    hsi = xarray.DataArray(np.moveaxis(arrays["hsi"], -1, 0), dims=("band", "y", "x"), coords=place)
    lidar = xarray.DataArray(arrays["lidar"][..., 0], dims=("y", "x"), coords=place)
    placed: xarray.Dataset = xarray.Dataset({"hsi": hsi, "lidar": lidar}).rio.write_crs("EPSG:32633")
    return placed


@pytest.fixture(scope="session")
def labels(archive: Archive) -> np.ndarray:
    """Three labelled pixels a class: ids (row, col), 0 elsewhere."""
    known = archive.read_scene("town").labels
    assert known is not None
    few = np.zeros_like(known)
    for class_id in (2, 5, 7):
        rows, cols = np.nonzero(known == class_id)
        few[rows[:3], cols[:3]] = class_id
    return few
