"""What grows with an archive: the order of a step's samples, opening a manifest, and what each rank is sent.

The manifests are generated: as many tars as tiles, of zeros where opening looks at them and else absent.
"""

import hashlib
import multiprocessing
import pickle
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from process_memory import peak_mib
from report import Row, Value

from diffclip_dist.data.order import GlobalOrder
from diffclip_dist.data.order_config import OrderConfig
from diffclip_dist.data.training_data import TrainingData
from shards.archive.archive import Archive
from shards.archive.manifest import (
    MANIFEST_NAME,
    FileRecord,
    ModalityRecord,
    SceneRecord,
    TileRecord,
    write_manifest,
)
from shards.archive.manifest_tables import archive_manifest

ORDER: Final = OrderConfig(seed=0, global_batch=128, shuffle_streams=8, shuffle_buffer=4)
TILE: Final = 64
STEPS: Final = 400


def archive_size_rows(tiles: Sequence[int], opened: Sequence[int]) -> list[Row]:
    """A row for each number of tiles.

    Args:
        tiles: numbers of tiles whose order is timed.
        opened: those whose manifest is written and opened as well.
    """
    return [{**order_row(count), **(opening_row(count) if count in opened else {})} for count in tiles]


def order_row(tiles: int) -> dict[str, Value]:
    """Microseconds a step of 128 samples over 8 streams: on one rank, on one of 8, and several steps at once."""
    pixels = np.random.default_rng(0).integers(TILE, TILE**2 + 1, tiles)
    begun = time.perf_counter()
    order = GlobalOrder([pixels], ORDER)
    start_ms = (time.perf_counter() - begun) * 1e3
    whole, eighth = range(ORDER.global_batch), range(ORDER.global_batch // 8)
    return {
        "measurement": "archive size",
        "tiles": tiles,
        "order_start_ms": start_ms,
        "order_step_us": step_us(order, whole, 1),
        "order_step_of_8_ranks_us": step_us(order, eighth, 1),
        "order_step_16_at_once_us": step_us(order, whole, 16),
    }


def step_us(order: GlobalOrder, positions: range, at_once: int) -> float:
    """Median time of a step, in the order in which training takes them."""
    taken = []
    for step in range(0, STEPS * at_once, at_once):
        begun = time.perf_counter()
        order.samples(range(step, step + at_once), positions)
        taken.append((time.perf_counter() - begun) * 1e6 / at_once)
    return statistics.median(taken)


def opening_row(tiles: int) -> dict[str, Value]:
    """Time and memory of a process that opens such an archive and plans a run, and what it sends to each rank.

    A rank has started when it has received the order and found the tiles of its first step.
    """
    with tempfile.TemporaryDirectory(prefix="diffclip-manifest-") as folder:
        context = multiprocessing.get_context("spawn")
        with context.Pool(1) as pool:
            pool.apply(write_archive, (folder, tiles))
        with context.Pool(1) as pool:
            return pool.apply(opened_row, (folder,))


def opened_row(folder: str) -> dict[str, Value]:
    """Measures in a process of its own."""
    before = peak_mib()
    begun = time.perf_counter()
    archive = Archive.open(folder)
    open_ms = (time.perf_counter() - begun) * 1e3
    open_peak = peak_mib() - before
    data = TrainingData.of(archive, 11, ORDER)
    planned_ms = (time.perf_counter() - begun) * 1e3
    sent = pickle.dumps(data)
    begun = time.perf_counter()
    received: TrainingData = pickle.loads(sent)  # noqa: S301  our own, as Ray and the loader send it
    received_ms = (time.perf_counter() - begun) * 1e3
    (step,) = received.order.samples(range(1), range(ORDER.global_batch))
    for tile in np.unique(step.tile_B):
        received.groups[step.sensor].tiles[int(tile)]
    return {
        "manifest_kb": Path(folder, MANIFEST_NAME).stat().st_size / 1e3,
        "open_ms": open_ms,
        "open_peak_mib": open_peak,
        "open_and_plan_ms": planned_ms,
        "open_and_plan_peak_mib": peak_mib() - before,
        "sent_to_rank_mb": len(sent) / 1e6,
        "received_ms": received_ms,
        "rank_start_ms": (time.perf_counter() - begun) * 1e3,
    }


def write_archive(folder: str, tiles: int) -> None:
    """Writes a generated manifest, with its tables or tars of zeros, of so many tiles in as many tars."""
    across = max(1, int(tiles**0.5))
    height, width = -(-tiles // across) * TILE, across * TILE
    modality = ModalityRecord(
        "hsi", 2, "int16", None, None, (), (0.0, 0.0), (1.0, 1.0), (), height * width, missing_value=-32768
    )
    records, files = [], []
    for number in range(tiles):
        row, col = number // across * TILE, number % across * TILE
        path = f"tiles/generated-{number:07d}.tar"
        key = f"generated_{row:07d}_{col:07d}"
        records.append(TileRecord("generated", key, path, 0, 30_720, row, col, TILE, TILE, TILE**2 - number % 50))
        files.append(FileRecord(path, 40_960, hashlib.sha256(path.encode()).hexdigest(), 1))
    scene = SceneRecord(
        "generated", height, width, (modality,), None, None, {}, {}, False, True, TILE, 5, 1, None, tuple(records)
    )  # fmt: skip
    manifest, tables = archive_manifest([scene], files)
    Path(folder, "tiles").mkdir()
    for record in files if manifest.tables is None else ():
        with Path(folder, record.path).open("wb") as file:
            file.truncate(record.bytes)
    for path, content in tables.items():
        Path(folder, path).parent.mkdir(exist_ok=True)
        Path(folder, path).write_bytes(content)
    Path(folder, MANIFEST_NAME).write_bytes(write_manifest(manifest))
