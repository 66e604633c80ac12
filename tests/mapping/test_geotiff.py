"""Maps as Cloud Optimized GeoTIFFs: tiled, with overviews that hold class ids, whole or absent."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_study import CLASSES

from diffclip_dist.fewshot.classifier import MappedClass
from diffclip_dist.mapping.geotiff import map_writer
from diffclip_dist.mapping.predict import BLOCK
from shards.archive.manifest import SceneRecord

SIDE = 2 * BLOCK + 100
NAMED = tuple(MappedClass(class_id, name, "#336699") for class_id, name in CLASSES.items())


def scene_of(side: int) -> SceneRecord:
    return SceneRecord(
        name="flat", height=side, width=side, modalities=(), tile_size=64, halo=0,
        samples_per_shard=16, kept_bits=None, crs_wkt=rasterio.CRS.from_epsg(32633).to_wkt(),
        transform=(10.0, 0.0, 4e5, 0.0, -10.0, 5e6), classes=CLASSES, descriptions={}, official_split=False,
        generated=True, tiles=(),
    )  # fmt: skip


def test_blocks_in_any_order_make_a_tiled_map_with_overviews_of_class_ids(tmp_path: Path) -> None:
    ids = np.array([0, *CLASSES], dtype=np.uint8)
    class_map = ids[np.random.default_rng(0).integers(0, len(ids), (SIDE, SIDE))]
    class_map[:64, :64] = 7
    corners = [(row, col) for row in range(0, SIDE, 300) for col in range(0, SIDE, 300)]
    with map_writer(tmp_path / "map.tif", "uint8", scene_of(SIDE), NAMED, {}) as write:
        for row, col in reversed(corners):
            write(row, col, class_map[row : row + 300, col : col + 300])
        assert not (tmp_path / "map.tif").exists()
    with rasterio.open(tmp_path / "map.tif") as read:
        assert read.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert read.block_shapes == [(BLOCK, BLOCK)]
        assert read.overviews(1)
        assert read.crs.to_epsg() == 32633
        assert np.array_equal(read.read(1), class_map)
        half = read.read(1, out_shape=(SIDE // 2, SIDE // 2))
        assert (half[:32, :32] == 7).all()
        assert set(np.unique(half).tolist()) <= {0, *CLASSES}
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "map.tif.aux.xml", "map.qml"}


def test_a_map_that_fails_half_way_leaves_the_earlier_one(tmp_path: Path) -> None:
    earlier = np.full((40, 40), 5, dtype=np.uint8)
    with map_writer(tmp_path / "map.tif", "uint8", scene_of(40), NAMED, {}) as write:
        write(0, 0, earlier)

    def fail() -> None:
        with map_writer(tmp_path / "map.tif", "uint8", scene_of(40), NAMED, {}) as write:
            write(0, 0, np.full((20, 40), 2, dtype=np.uint8))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    with rasterio.open(tmp_path / "map.tif") as read:
        assert (read.read(1) == 5).all()
    assert {path.name for path in tmp_path.iterdir()} == {"map.tif", "map.tif.aux.xml", "map.qml"}
