"""What holds for every archive, whatever the shapes, types, holes, tile sizes and halos."""

import tempfile
from pathlib import Path

import numpy as np
import webdataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes

DTYPES = ("uint8", "int16", "uint16", "int32", "float32", "float64")


@st.composite
def scenes(draw: st.DrawFn) -> ArrayScene:
    """Scenes from 1x2 pixels on, with holes in the footprint of each modality of floats, some labelled."""
    height, width = draw(st.integers(1, 23)), draw(st.integers(2, 23))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = {}
    for place in range(draw(st.integers(1, 3))):
        dtype = np.dtype(draw(st.sampled_from(DTYPES)))
        low, high = (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-1000, 1000)
        array = rng.integers(low, high, (height, width, draw(st.integers(1, 6))), endpoint=True).astype(dtype)
        if dtype.kind == "f":
            array[rng.random((height, width)) < draw(st.sampled_from([0.0, 0.3, 0.9]))] = np.nan
            array[rng.random(array.shape) < 0.02] = np.inf
        array[0, 0], array[-1, -1] = 3, 5  # some pixel is valid, and no band constant
        values[f"m{place}"] = array
    if not draw(st.booleans()):
        return ArrayScene("any", values)
    labels = rng.integers(0, 3, (height, width)).astype(np.uint16)
    labels[0, 0] = 2
    return ArrayScene("any", values, classes=Classes({1: "one", 2: "two"}), labels=labels)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    scene=scenes(),
    tile_size=st.integers(1, 30),
    halo=st.integers(0, 12),
    samples=st.sampled_from([1, 2, 5, 16]),
)
def test_an_archive_gives_back_every_pixel_once(scene: ArrayScene, tile_size: int, halo: int, samples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "archive"
        if scene.height * scene.width / tile_size**2 > 60:
            tile_size += 4  # thousands of tiles of one pixel show nothing more
        build_archive([scene], out, ArchiveSettings(tile_size, halo, samples))
        archive = Archive.open(out, verify="hash")
        record = archive.scene("any")
        read = archive.read_scene("any")
        valid = {name: np.isfinite(array).all(axis=-1) for name, array in scene.values.items()}
        for name, array in scene.values.items():
            np.testing.assert_array_equal(read.valid[name], valid[name])
            np.testing.assert_array_equal(read.values[name][valid[name]], array[valid[name]])
            check_statistics(archive, name, array[valid[name]])
        if scene.labels is None:
            assert read.labels is None
        else:
            np.testing.assert_array_equal(read.labels, scene.labels)
        centres = np.zeros((scene.height, scene.width), int)
        for tile in record.tiles:
            core = np.s_[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
            centres[core] += 1
            assert tile.valid_pixels == np.any([mask[core] for mask in valid.values()], axis=0).sum() > 0
            got = archive.read_tile(tile)
            for name, array in scene.values.items():
                padded_valid = np.pad(valid[name], halo)
                padded = np.pad(array, ((halo, halo), (halo, halo), (0, 0)))
                window = np.s_[
                    tile.row : tile.row + tile.height + 2 * halo, tile.col : tile.col + tile.width + 2 * halo
                ]
                np.testing.assert_array_equal(got.valid[name], padded_valid[window])
                np.testing.assert_array_equal(got.values[name][got.valid[name]], padded[window][padded_valid[window]])
        # each pixel that is valid anywhere is the centre of exactly one window, and no tile is without such a pixel
        anywhere = np.any(list(valid.values()), axis=0)
        assert (centres[anywhere] == 1).all()
        assert centres.max() == 1
        check_plain_webdataset(archive)


def check_statistics(archive: Archive, name: str, pixels: np.ndarray) -> None:
    record = archive.scene("any").modality(name)
    exact = pixels.astype(np.float64)
    assert record.valid_pixels == len(pixels)
    np.testing.assert_allclose(record.mean, exact.mean(axis=0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(record.std, exact.std(axis=0), rtol=1e-9, atol=1e-9)


def check_plain_webdataset(archive: Archive) -> None:
    """The tars open in the webdataset package as it comes, and hold the same tiles."""
    record = archive.scene("any")
    tars = sorted({str(Path(archive.location) / tile.path) for tile in record.tiles})
    dataset = webdataset.WebDataset(tars, shardshuffle=False, empty_check=False).decode()
    samples = {sample["__key__"]: sample for sample in dataset}
    assert sorted(samples) == sorted(tile.key for tile in record.tiles)
    for tile in record.tiles:
        sample = samples[tile.key]
        assert (sample["json"]["row"], sample["json"]["col"]) == (tile.row, tile.col)
        assert not sample["json"]["generated"]
        # pixels and their place, nothing else: pretraining cannot see a label
        assert {name for name in sample if not name.startswith("__")} == {
            "json",
            *(f"{m.name}.npy" for m in record.modalities),
        }
        assert sample["json"].keys() == {"scene", "generated", "row", "col", "height", "width", "halo"}
        for name, values in archive.read_tile(tile).values.items():
            np.testing.assert_array_equal(sample[f"{name}.npy"], values)
