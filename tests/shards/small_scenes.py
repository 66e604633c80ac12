"""Small scenes on disk, and how a command ended, for the tests of archives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import yaml
from rasterio.transform import from_origin


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    status: int
    out: str
    err: str


ShardCommand = Callable[..., Outcome]


def write_raster(
    path: Path, values: np.ndarray, origin: tuple[float, float] | None = (500.0, 900.0), **more: Any
) -> Path:
    """Writes (row, col, band) values as GeoTIFF with pixels of 10 m in EPSG:32633, or without any place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    profile: dict[str, Any] = {"driver": "GTiff", "dtype": values.dtype, "count": values.shape[2]}
    if origin is not None:
        profile |= {"crs": "EPSG:32633", "transform": from_origin(*origin, 10, 10)}
    with rasterio.open(path, "w", height=values.shape[0], width=values.shape[1], **(profile | more)) as raster:
        raster.write(np.moveaxis(values, -1, 0))
    return path


def write_scene(
    folder: Path, modalities: dict[str, Any], labels: dict[str, Any] | None = None, name: str = "place"
) -> Path:
    """Writes a scene.yaml; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"name": name, "modalities": modalities}
    if labels is not None:
        content["labels"] = labels
    path = folder / "scene.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def pixels(height: int, width: int, bands: int, dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Values that differ from pixel to pixel and band to band, none of them an end of its type's range."""
    drawn = np.random.default_rng(seed).integers(1, 120, (height, width, bands))
    drawn[0, 0], drawn[-1, -1] = 1, 121  # no band is constant, however few the pixels
    return drawn.astype(dtype)
