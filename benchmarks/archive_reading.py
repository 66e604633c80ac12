"""Ways to get windows out of a scene: the tile archive by offset and in sequence, one window a sample, Zarr, memory.

All give standardised float32 windows of every band, as training takes them, in batches of one size, from a warm cache,
in one process.
"""

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
import webdataset
from archive_tasks import BATCH, WINDOW, houston_like
from report import Row, median_row
from torch import Tensor

from diffclip_dist.data.batches import RankShare, WindowStream
from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.training_data import TrainingData
from diffclip_dist.data.windows import SceneWindows, as_tensor, cut_windows, standardise, window_offsets
from shards.archive.archive import Archive
from shards.archive.tile_tars import read_samples
from shards.archive.tiles import decode_members
from shards.archive.tiling import ArchiveSettings
from shards.archive.zarr_scenes import array_of, open_zarr_scene
from shards.build.build_archive import build_archive

Batch = dict[str, Tensor]  # modality to (window, token, band)
TILES_AT_ONCE: Final = 4
COPY_BYTES: Final = 1 << 28


@dataclass(frozen=True)
class Effort:
    """How much is read in one repeat of each way.

    Attributes:
        side: side of the generated scene in pixels.
        batches: batches from the tile archive.
        window_samples: windows from one-window-a-sample tars; so many are written, too.
        zarr_reads: windows read one by one from Zarr.
        repeats: after one that warms up.
    """

    side: int
    batches: int
    window_samples: int
    zarr_reads: int
    repeats: int


def reading_rows(scratch: Path, effort: Effort) -> list[Row]:
    """One row a way; the ratios are those of this run."""
    source = houston_like(effort.side)
    build_archive([source], scratch / "reading", ArchiveSettings())
    archive = Archive.open(scratch / "reading", verify="hash")
    scene = archive.scene(source.name)
    tars = write_window_samples(archive, scene.name, scratch / "windows.tar", effort.window_samples)
    bytes_a_window = WINDOW**2 * sum(modality.bands for modality in scene.modalities) * 4
    ways: dict[str, tuple[Callable[[], Iterator[Batch]], int]] = {
        "tile archive": (lambda: from_tiles(archive), effort.batches * BATCH),
        "tile archive in sequence, webdataset": (
            lambda: from_tiles_in_sequence(archive, scene.name),
            effort.batches * BATCH,
        ),
        "scene in memory": (lambda: from_memory(archive, scene.name), effort.batches * BATCH),
        "webdataset, one window a sample": (lambda: from_window_samples(tars), effort.window_samples),
        "zarr, one read a window": (lambda: from_zarr(archive, scene.name), effort.zarr_reads),
    }
    rows: list[Row] = []
    copy = median_row([{"copy_gb_per_s": memory_copy_gb_per_s()} for _ in range(effort.repeats)])["copy_gb_per_s"]
    for way, (windows, count) in ways.items():
        rates = [measured_rate(windows, count) for _ in range(effort.repeats + 1)][1:]
        rows.append(
            {
                "part": "reading",
                "way": way,
                "window_pixels": WINDOW,
                "bands": 145,
                **median_row([{"windows_per_s": rate, "gb_per_s": rate * bytes_a_window / 1e9} for rate in rates]),
                "memory_copy_gb_per_s": copy,
            }
        )
    best = float(str(rows[0]["windows_per_s"]))
    return [{**row, "tile_archive_ratio": best / float(str(row["windows_per_s"]))} for row in rows]


def measured_rate(windows: Callable[[], Iterator[Batch]], count: int) -> float:
    """Windows a second, until at least `count` have come."""
    batches = windows()
    next(batches)  # opening files and starting up is no part of the rate
    got, start = 0, time.perf_counter()
    while got < count:
        got += len(next(iter(next(batches).values())))
    return got / (time.perf_counter() - start)


def from_tiles(archive: Archive) -> Iterator[Batch]:
    """As pretraining reads: the global order, tiles read and standardised as they come, windows cut from them."""
    order = OrderConfig(seed=0, global_batch=BATCH, shuffle_streams=1, shuffle_buffer=TILES_AT_ONCE)
    stream = WindowStream(TrainingData.of(archive, WINDOW, order), RankShare(0, 1), torch.device("cpu"))
    for batch in stream.batches(0, 1 << 30):
        yield batch.windows


def from_tiles_in_sequence(archive: Archive, name: str) -> Iterator[Batch]:
    """Tars read from beginning to end; a batch of random windows from each tile, so that no batch mixes tiles."""
    record = archive.scene(name)
    rng = np.random.default_rng(0)
    while True:
        for path, tiles in itertools.groupby(record.tiles, key=lambda tile: tile.path):
            with archive.store.open(path) as file:
                for place, sample in zip(tiles, read_samples(file, path), strict=True):
                    tile = decode_members(sample, place, record)
                    row_length = place.width + 2 * record.halo
                    rows, cols = (rng.integers(0, side, BATCH) + record.halo for side in (place.height, place.width))
                    centres_B, offsets_N = (
                        torch.from_numpy(rows * row_length + cols),
                        window_offsets(WINDOW, row_length),
                    )
                    tables = {
                        m: standardise(as_tensor(values), as_tensor(tile.valid[m]), record.modality(m))
                        for m, values in tile.values.items()
                    }
                    yield {m: cut_windows(table.flatten(0, 1), centres_B, offsets_N) for m, table in tables.items()}


def from_memory(archive: Archive, name: str) -> Iterator[Batch]:
    """The upper bound: the whole scene standardised in memory beforehand."""
    scene = archive.read_scene(name)
    cutter = SceneWindows(scene, scene.record, WINDOW)
    rng = np.random.default_rng(0)
    while True:
        sides = scene.record.height, scene.record.width
        windows, _ = cutter.gather(*(rng.integers(0, side, BATCH) for side in sides))
        yield dict(windows)


def write_window_samples(archive: Archive, name: str, path: Path, count: int) -> Path:
    """Ready windows, one a sample: standardised float32, so that a reader has nothing left to do but to read."""
    cubes = from_memory(archive, name)
    written = 0
    with webdataset.TarWriter(str(path)) as tar:
        while written < count:
            for window in torch.cat(list(next(cubes).values()), dim=2):
                tar.write({"__key__": f"{written:08d}", "npy": window.numpy()})
                written += 1
    return path


def from_window_samples(tar: Path) -> Iterator[Batch]:
    """Plain webdataset over the tars of single windows."""
    while True:
        dataset = webdataset.WebDataset(str(tar), shardshuffle=False).decode().to_tuple("npy").batched(BATCH)
        for (windows,) in dataset:
            yield {"all": torch.as_tensor(windows)}


def from_zarr(archive: Archive, name: str) -> Iterator[Batch]:
    """One read of the scene's arrays a window."""
    record = archive.scene(name)
    group = open_zarr_scene(archive.store.zarr_store(record.zarr_path))
    arrays = [(array_of(group, modality.name), modality) for modality in record.modalities]
    rng = np.random.default_rng(0)
    while True:
        windows: list[Tensor] = []
        for _ in range(8):
            row, col = (int(rng.integers(0, side - WINDOW)) for side in (record.height, record.width))
            cut = [
                standardise(as_tensor(values), as_tensor(np.isfinite(values[..., 0])), modality)
                for values, modality in (
                    (np.asarray(array[row : row + WINDOW, col : col + WINDOW]), modality) for array, modality in arrays
                )
            ]
            windows.append(torch.cat(cut, dim=-1))
        yield {"all": torch.stack(windows)}


def memory_copy_gb_per_s() -> float:
    """Bytes copied a second, from one array into another."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.zeros_like(source)
    start = time.perf_counter()
    np.copyto(target, source)
    return COPY_BYTES / (time.perf_counter() - start) / 1e9
