"""Windows as ranks receive them, against windows cut from the whole scene."""

from pathlib import Path

import pytest
import torch

from diffclip_dist.data.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.sensors import group_scenes
from diffclip_dist.data.training_data import TrainingData
from diffclip_dist.data.windows import SceneWindows
from shards.archive.archive import Archive
from shards.errors import BadInput

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


def test_a_batch_that_cannot_be_shared_is_refused(generated_archive: Path) -> None:
    stream = stream_of(generated_archive, world_size=5)
    with pytest.raises(BadInput, match=r"global batch: expected a multiple of the number of workers \(5\), found 24"):
        next(stream.batches(0, 1))


def test_a_window_wider_than_the_halo_is_refused(generated_archive: Path) -> None:
    manifest = Archive.open(str(generated_archive)).manifest
    with pytest.raises(BadInput, match=r"model.window: expected at most 11"):
        group_scenes(manifest, window=13)
