"""An archive as a dataset asked by bounding boxes, against the files that the archive was built from."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.windows import from_bounds
from small_scenes import pixels, write_raster, write_scene
from torch.utils.data import DataLoader

import diffclip_dist as dc
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.open_scene import open_scene

HEIGHT, WIDTH = 40, 50


def write_place(folder: Path, name: str, x: float, y: float, seed: int, **changes: object) -> str:
    """A scene of two modalities and labels with pixels of 10 m; its upper left corner lies at x, y."""
    given = {"bands": 3, "crs": "EPSG:32633", "classes": {1: "grass", 2: "water"}, **changes}
    values = pixels(HEIGHT, WIDTH, int(str(given["bands"])), "int16", seed)
    values[10:14, 5:9] = -5
    write_raster(folder / "msi.tif", values, (x, y), nodata=-5, crs=given["crs"])
    write_raster(folder / "dsm.tif", pixels(HEIGHT, WIDTH, 1, "float32", seed + 1), (x, y), crs=given["crs"])
    ids = (np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH) // 7 % 3).astype(np.uint8)
    np.save(folder / "gt.npy", ids)
    labels = {"files": "gt.npy", "ignore": [0], "classes": given["classes"]}
    return str(write_scene(folder, {"msi": {"files": "msi.tif"}, "dsm": {"files": "dsm.tif"}}, labels, name))


def build(folder: Path, *scenes: str) -> Archive:
    build_archive([open_scene(scene) for scene in scenes], folder / "archive", ArchiveSettings(tile_size=16, halo=2))
    return Archive.open(folder / "archive")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of two scenes on one grid, the second 30 pixels east and 10 south of the first, which it meets."""
    folder = tmp_path_factory.mktemp("places")
    for name, x, y, seed in (("west", 600_000, 5_000_000, 0), ("east", 600_300, 4_999_900, 5)):
        (folder / name).mkdir()
        write_place(folder / name, name, x, y, seed)
    return folder


@pytest.fixture(scope="module")
def archive(files: Path) -> Archive:
    return build(files, str(files / "west" / "scene.yaml"), str(files / "east" / "scene.yaml"))


def test_a_box_gives_what_rasterio_reads_there(files: Path, archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive, scenes=["west"])
    sample = dataset[600_020:600_120, 4_999_800:4_999_920]
    bounds = (600_020, 4_999_800, 600_120, 4_999_920)
    with rasterio.open(files / "west" / "msi.tif") as msi, rasterio.open(files / "west" / "dsm.tif") as dsm:
        expected = msi.read(window=from_bounds(*bounds, msi.transform))
        heights = dsm.read(window=from_bounds(*bounds, dsm.transform))
    assert sample["image"].shape == (4, 12, 10)
    assert sample["image"].dtype == torch.float32
    assert sample["bounds"].tolist() == list(bounds)
    assert rasterio.CRS.from_wkt(sample["crs"]).to_epsg() == 32633
    missing = (expected == -5).any(axis=0)
    assert missing.any()
    np.testing.assert_array_equal(sample["valid"][0], ~missing)
    assert sample["valid"][1].all()
    np.testing.assert_array_equal(sample["image"][:3], np.where(missing, 0, expected))
    np.testing.assert_array_equal(sample["image"][3:], heights)
    np.testing.assert_array_equal(sample["mask"], np.load(files / "west" / "gt.npy")[8:20, 2:12])
    assert dataset.bands == (("msi", 1), ("msi", 2), ("msi", 3), ("dsm", 1))
    assert dataset.classes == {1: "grass", 2: "water"}


def test_a_box_over_two_scenes_takes_the_first_that_has_data(files: Path, archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive, scenes=["west", "east"], modalities=["msi"])
    assert dataset.bounds == (600_000, 4_999_500, 600_800, 5_000_000)
    whole = dataset[:, :]
    expected = np.zeros((3, 50, 80), np.float32)
    known = np.zeros((50, 80), bool)
    for name, row, col in (("west", 0, 0), ("east", 10, 30)):
        with rasterio.open(files / name / "msi.tif") as file:
            values = file.read()
        place = np.s_[row : row + HEIGHT, col : col + WIDTH]
        new = (values != -5).all(axis=0) & ~known[place]
        expected[(slice(None), *place)][:, new] = values[:, new]
        known[place] |= new
    np.testing.assert_array_equal(whole["image"], expected)
    np.testing.assert_array_equal(whole["valid"][0], known)
    assert not known[:10, 50:].any()  # which no scene covers


def test_a_box_takes_the_nearest_pixels_and_may_reach_beyond(archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive, scenes=["west"])
    exact, near = dataset[600_020:600_120, 4_999_800:4_999_900], dataset[600_023:600_117, 4_999_796:4_999_904]
    assert torch.equal(exact["image"], near["image"])
    assert torch.equal(exact["bounds"], near["bounds"])
    beyond = dataset[599_950:600_050, 4_999_950:5_000_050]
    assert not beyond["valid"][:, :5].any()
    assert not beyond["valid"][:, :, :5].any()
    assert torch.equal(beyond["image"][:, 5:, 5:], dataset[600_000:600_050, 4_999_950:5_000_000]["image"])


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (np.s_[0:100, 0:100], "meets no scene"),
        (np.s_[600_001:600_002, 4_999_800:4_999_900], "holds no pixel"),
        (np.s_[600_020:600_120:2, 4_999_800:4_999_900], "no steps"),
        (3, r"expected dataset\[xmin:xmax, ymin:ymax\]"),
    ],
    ids=str,
)
def test_a_box_that_cannot_be_read_is_told(archive: Archive, query: object, said: str) -> None:
    with pytest.raises(IndexError, match=said):
        dc.ArchiveGeoDataset(archive)[query]  # type: ignore[index]


def test_loaders_take_drawn_boxes_the_same_with_any_workers(archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive.location)
    sampler = dc.RandomGeoSampler(dataset, size=12, length=9, seed=4)
    batches = list(DataLoader(dataset, sampler=sampler, batch_size=4))
    assert [len(batch["image"]) for batch in batches] == [4, 4, 1]
    assert batches[0]["image"].shape == (4, 4, 12, 12)
    assert all(batch["valid"][:, 1].all() for batch in batches)  # a whole box lies in one scene
    by_workers = list(DataLoader(dataset, sampler=sampler, batch_size=4, num_workers=2))
    for one, other in zip(batches, by_workers, strict=True):
        assert torch.equal(one["bounds"], other["bounds"])
        assert torch.equal(one["image"], other["image"])
    boxes = [tuple(bounds.tolist()) for batch in batches for bounds in batch["bounds"]]
    assert len({*boxes}) > 5
    sampler.set_epoch(1)
    assert [tuple(dataset[box]["bounds"].tolist()) for box in sampler] != boxes


def test_drawn_boxes_lie_evenly_over_scenes_of_any_size(archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive)
    drawn = [(x.start, y.start) for x, y in dc.RandomGeoSampler(dataset, size=39, length=2000)]
    assert len({*drawn}) == 2 * 2 * 12  # every place of a box in either scene
    counts = np.unique(np.array(drawn), axis=0, return_counts=True)[1]
    assert counts.min() > 15
    assert counts.max() < 80


@pytest.mark.parametrize("stride", [None, 7])
def test_a_grid_of_boxes_covers_every_pixel_and_stays_inside(archive: Archive, stride: int | None) -> None:
    dataset = dc.ArchiveGeoDataset(archive, scenes=["west"])
    sampler = dc.GridGeoSampler(dataset, 12, stride)
    seen = np.zeros((HEIGHT, WIDTH), int)
    for x, y in sampler:
        row, col = round((5_000_000 - y.stop) / 10), round((x.start - 600_000) / 10)
        assert 0 <= row <= HEIGHT - 12
        assert 0 <= col <= WIDTH - 12
        seen[row : row + 12, col : col + 12] += 1
    assert seen.min() >= 1
    assert len(list(sampler)) == len(sampler)


def test_a_grid_over_a_scene_smaller_than_a_box_gives_one_box(archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive, scenes=["west"])
    (box,) = dc.GridGeoSampler(dataset, 64)
    assert dataset[box]["image"].shape == (4, 64, 64)
    with pytest.raises(BadInput, match="no scene is 64 pixels high and wide"):
        dc.RandomGeoSampler(dataset, 64, 10)
    with pytest.raises(BadInput, match="stride: expected 1 to 12"):
        dc.GridGeoSampler(dataset, 12, 13)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x": 600_004.0}, "differ in grid"),
        ({"crs": "EPSG:32632"}, "differ in CRS"),
        ({"bands": 2}, "differ in bands"),
        ({"classes": {1: "grass", 2: "roof"}}, "differ in classes"),
    ],
    ids=str,
)
def test_scenes_that_do_not_fit_each_other_are_named(
    files: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    (tmp_path / "other").mkdir()
    place = {"x": 600_000.0, "y": 5_000_000.0, "seed": 1, **changes}
    other = write_place(tmp_path / "other", "other", **place)  # type: ignore[arg-type]
    archive = build(tmp_path, str(files / "west" / "scene.yaml"), other)
    with pytest.raises(BadInput, match=f"scenes other and west {said}"):
        dc.ArchiveGeoDataset(archive)
    assert len(dc.ArchiveGeoDataset(archive, scenes=["other"]).scenes) == 1


def test_scenes_without_a_place_are_refused(generated_archive: Path) -> None:
    with pytest.raises(BadInput, match="no scene has a CRS"):
        dc.ArchiveGeoDataset(generated_archive)
    with pytest.raises(BadInput, match="scene small has no CRS"):
        dc.ArchiveGeoDataset(generated_archive, scenes=["small"])


def test_a_transform_changes_each_sample(archive: Archive) -> None:
    dataset = dc.ArchiveGeoDataset(archive, transforms=lambda sample: {"mean": sample["image"].mean()})
    assert dataset[600_000:600_100, 4_999_800:4_999_900].keys() == {"mean"}
