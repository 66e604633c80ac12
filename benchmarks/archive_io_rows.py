"""Measures the rows of archive_io.py, part by part, and draws them."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from archive_building import KILLS, kill_rows, memory_rows, worker_rows
from archive_codecs import by_codec, codec_rows, footprint_rows, samples_of
from archive_reading import Effort, reading_rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from report import Row, check_destination, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE


@dataclass(frozen=True)
class Size:
    """How large everything is; sides of generated scenes in pixels."""

    reading: Effort
    codec_side: int
    codec_repeats: int
    building_side: int
    building_repeats: int
    memory_side: int
    kill_side: int
    kills: int


QUICK: Final = Size(Effort(192, 40, 1024, 40, 1), 128, 1, 256, 1, 384, 192, 2)
# 3712 x 3712 pixels of 144 int16 and 1 float32 bands are 4.0 GB
FULL: Final = Size(Effort(512, 400, 8192, 400, 5), 256, 3, 1024, 5, 3712, 512, KILLS)
TITLES: Final = {
    "reading": "Windows of 11x11x145 float32, one process, warm cache; medians (lowest to highest)",
    "codecs": "Codecs: bytes on disk over raw bytes of valid pixels, mean of samples (* outside the specification)",
    "footprint": "Bytes of an archive over raw bytes of valid pixels",
    "building": "Building with one and two workers",
    "memory": "A large generated scene, built and streamed in processes of their own",
    "kills": "Builds killed at random moments and started again",
}


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    size = QUICK if arguments.quick else FULL
    real = None if arguments.quick else real_scenes()
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="diffclip-archive-io-") as folder:
        scratch = Path(folder)
        parts: dict[str, Callable[[], list[Row]]] = {
            "reading": lambda: reading_rows(scratch, size.reading),
            "codecs": lambda: codec_rows(samples_of(scratch, size.codec_side, real), size.codec_repeats),
            "footprint": lambda: footprint_rows(scratch, size.codec_side),
            "building": lambda: worker_rows(scratch, size.building_side, size.building_repeats),
            "memory": lambda: memory_rows(scratch, size.memory_side),
            "kills": lambda: kill_rows(scratch, size.kill_side, size.kills),
        }
        for part, measure in parts.items():
            print(f"measuring {part} ...", file=sys.stderr, flush=True)
            found = measure()
            rows += found
            shown = by_codec(found) if part == "codecs" else found
            print_table(
                TITLES[part], [{key: row[key] for key in row if key not in ("part", "sha256")} for row in shown]
            )
    if arguments.json is not None:
        scenes = "generated" if real is None else "generated; codecs also on the real scenes at hand"
        write_json(arguments.json, {"scenes": scenes, "processes_waiting_to_run_before": load}, rows)
        picture = arguments.json.with_suffix(".png")
        draw(rows).savefig(picture, dpi=110)
        print(f"{arguments.json}\n{picture}")
    return EXIT_DONE


def real_scenes() -> Path | None:
    """The folder of real scenes that DIFFCLIP_DATA names, for the codec table."""
    named = os.environ.get("DIFFCLIP_DATA")
    return Path(named) if named and Path(named).is_dir() else None


def draw(rows: list[Row]) -> Figure:
    """Rates of reading, ratios of codecs, and the speed-up of building, side by side."""
    figure = Figure(figsize=(15, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    reading, codecs, building = figure.subplots(1, 3, width_ratios=[1, 1.6, 0.8])
    ways = [row for row in rows if row["part"] == "reading"]
    bars: Any = reading.barh(
        [str(row["way"]) for row in ways], [_number(row, "windows_per_s") for row in ways], color="#2b7bba"
    )
    reading.bar_label(bars, fmt="{:,.0f}", padding=3)
    reading.set_xscale("log")
    reading.margins(x=0.25)
    reading.invert_yaxis()
    reading.set_title("windows a second (11x11x145 float32)")
    tried = [row for row in rows if row["part"] == "codecs" and row["codec"] != "none"]
    for sample in dict.fromkeys(str(row["sample"]) for row in tried):
        points = [row for row in tried if row["sample"] == sample]
        x, y = ([_number(row, key) for row in points] for key in ("encode_mb_per_s", "disk_over_raw_ratio"))
        dots = codecs.scatter(x, y, label=sample, s=25)
        chosen = next(row for row in points if row["chosen"])
        at = _number(chosen, "encode_mb_per_s"), _number(chosen, "disk_over_raw_ratio")
        codecs.scatter(*at, s=110, facecolors="none", edgecolors=dots.get_facecolor())
    codecs.set_xlabel("encoding, MB a second")
    codecs.set_ylabel("bytes on disk over raw bytes")
    codecs.set_title("codecs (ringed: chosen)")
    codecs.legend(fontsize=8)
    speeds = [row for row in rows if row["part"] == "building"]
    bars = building.bar(
        [f"{row['source']}\n{row['workers']} workers" for row in speeds],
        [_number(row, "speed_up_ratio") for row in speeds],
        color="#1f6b35",
    )
    building.bar_label(bars, fmt="%.2f")
    building.tick_params(axis="x", labelrotation=90)
    building.set_title("speed-up of building")
    return figure


def _number(row: Row, key: str) -> float:
    return float(str(row[key]))
