"""Windows as ranks receive them, against windows cut from the whole scene."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffclip_dist.data.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.sensors import group_scenes
from diffclip_dist.data.training_data import TrainingData
from diffclip_dist.data.windows import SceneWindows
from shards.archive.archive import Archive
from shards.archive.manifest import TileRecord
from shards.archive.tiles import Tile
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput, DamagedArchive
from shards.scene.array_scene import ArrayScene

WINDOW, BATCH = 7, 24


def stream_of(archive: Path, rank: int = 0, world_size: int = 1, loader_processes: int = 0) -> WindowStream:
    data = TrainingData.of(Archive.open(archive), WINDOW, OrderConfig(3, BATCH, shuffle_streams=4, shuffle_buffer=2))
    return WindowStream(data, RankShare(rank, world_size), torch.device("cpu"), loader_processes)


def assert_same(first: WindowBatch, second: WindowBatch) -> None:
    assert torch.equal(first.positions_B, second.positions_B)
    for key, values in first.windows.items():
        assert torch.equal(values, second.windows[key])
        assert torch.equal(first.valid[key], second.valid[key])


def test_streamed_windows_are_those_of_the_scene(generated_archive: Path) -> None:
    stream = stream_of(generated_archive)
    archive = Archive.open(str(generated_archive))
    (record,) = archive.manifest.scenes
    scene_windows = SceneWindows(archive.read_scene("small"), record, WINDOW)
    (group,) = stream.data.groups
    centres = {}
    for index, tile in enumerate(group.tiles):
        valid = archive.read_tile(tile).valid
        halo = group.halo
        core = [mask[halo : halo + tile.height, halo : halo + tile.width] for mask in valid.values()]
        rows, cols = (core[0] | core[1]).nonzero()
        centres[index] = rows + tile.row, cols + tile.col
    steps = stream.data.order.steps_per_epoch + 2
    for step, batch in enumerate(stream.batches(0, steps)):
        samples = stream.samples(step)
        rows, cols = zip(
            *((centres[t][0][p], centres[t][1][p]) for t, p in zip(samples.tile_B, samples.pixel_B, strict=True)),
            strict=True,
        )
        windows, valid = scene_windows.gather(torch.tensor(rows).numpy(), torch.tensor(cols).numpy())
        for schema in batch.schemas:
            assert torch.equal(batch.windows[schema.key], windows[schema.name])
            assert torch.equal(batch.valid[schema.key], valid[schema.name])


@pytest.mark.parametrize(
    ("world_size", "loader_processes"),
    [(1, 0), (2, 0), (3, 0), (4, 0), (1, 2), pytest.param(4, 2, marks=pytest.mark.slow)],
)
def test_all_ranks_together_take_the_same_global_sequence_over_two_epochs(
    generated_archive: Path, world_size: int, loader_processes: int
) -> None:
    alone = stream_of(generated_archive)
    steps = 2 * alone.data.order.steps_per_epoch
    expected = alone.batches(0, steps)
    ranks = [
        stream_of(generated_archive, rank, world_size, loader_processes).batches(0, steps) for rank in range(world_size)
    ]
    for whole, *parts in zip(expected, *ranks, strict=True):
        joined = WindowBatch(
            whole.schemas,
            torch.cat([part.positions_B for part in parts]),
            {key: torch.cat([part.windows[key] for part in parts]) for key in whole.windows},
            {key: torch.cat([part.valid[key] for part in parts]) for key in whole.valid},
            all_valid=False,
        )
        assert_same(joined, whole)


def test_a_stream_can_start_anywhere(generated_archive: Path) -> None:
    stream = stream_of(generated_archive)
    whole = list(stream.batches(0, 9))
    for later, batch in zip(stream.batches(5, 9), whole[5:], strict=True):
        assert_same(later, batch)


def test_tiles_that_fit_in_the_cache_are_read_once(generated_archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = stream_of(generated_archive)
    steps = 3 * stream.data.order.steps_per_epoch
    expected = list(stream.batches(0, steps))
    read = []
    read_tile = Archive.read_tile
    monkeypatch.setattr(Archive, "read_tile", lambda archive, tile: read.append(tile.key) or read_tile(archive, tile))
    cached = list(replace(stream, cache_bytes=1 << 30).batches(0, steps))
    assert sorted(read) == sorted(tile.key for tile in stream.data.groups[0].tiles)
    for batch, other in zip(cached, expected, strict=True):
        assert_same(batch, other)


def test_windows_of_edge_tiles_and_holes_are_those_of_standardised_arrays(tmp_path: Path) -> None:
    """Against NumPy's arithmetic, for dtypes that torch only stores and for tiles of several sizes."""
    rng = np.random.default_rng(0)
    hole = np.zeros((50, 70), np.bool_)
    hole[10:20, 30:45] = True
    values = {
        "counts": rng.integers(0, 60000, (50, 70, 3)).astype(np.uint16),
        "height": np.where(hole, np.nan, rng.normal(100.0, 5.0, (50, 70)))[..., None].astype(np.float16),
    }
    build_archive([ArrayScene("edges", values)], tmp_path / "archive", ArchiveSettings(tile_size=32, halo=3))
    archive = Archive.open(tmp_path / "archive")
    (record,) = archive.manifest.scenes
    stream = stream_of(tmp_path / "archive")
    (group,) = stream.data.groups
    tables = {}
    for modality in record.modalities:
        mean, scale = np.float32(modality.mean), np.float32(1.0) / np.float32(modality.std)
        table = (values[modality.name].astype(np.float32) - mean) * scale
        if modality.name == "height":
            table[hole] = 0.0
        tables[modality.name] = np.pad(table, ((3, 3), (3, 3), (0, 0)))
    places = {}
    for index, tile in enumerate(group.tiles):
        rows, cols = np.mgrid[tile.row : tile.row + tile.height, tile.col : tile.col + tile.width]
        places[index] = rows.ravel(), cols.ravel()
    for step, batch in enumerate(stream.batches(0, stream.data.order.steps_per_epoch)):
        samples = stream.samples(step)
        for place, (tile, pixel) in enumerate(zip(samples.tile_B, samples.pixel_B, strict=True)):
            row, col = (axis[pixel] for axis in places[tile])
            for schema in batch.schemas:
                expected = tables[schema.name][row : row + WINDOW, col : col + WINDOW].reshape(WINDOW**2, -1)
                assert np.array_equal(batch.windows[schema.key][place].numpy(), expected)


def test_a_stream_that_is_closed_or_fails_leaves_no_thread(
    generated_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reading() -> bool:
        return any(thread.name == "read-ahead" for thread in threading.enumerate())

    batches = stream_of(generated_archive).batches(0, 1 << 20)
    next(batches)
    assert reading()
    batches.close()
    assert not reading()

    def fail(archive: Archive, tile: TileRecord) -> Tile:
        raise DamagedArchive(archive.location, (tile.path,))

    monkeypatch.setattr(Archive, "read_tile", fail)
    with pytest.raises(DamagedArchive):
        next(stream_of(generated_archive).batches(0, 9))
    assert not reading()


def test_a_batch_that_cannot_be_shared_is_refused(generated_archive: Path) -> None:
    stream = stream_of(generated_archive, world_size=5)
    with pytest.raises(BadInput, match=r"global batch: expected a multiple of the number of workers \(5\), found 24"):
        next(stream.batches(0, 1))


def test_a_window_wider_than_the_halo_is_refused(generated_archive: Path) -> None:
    manifest = Archive.open(str(generated_archive)).manifest
    with pytest.raises(BadInput, match=r"model.window: expected at most 11"):
        group_scenes(manifest, window=13)
