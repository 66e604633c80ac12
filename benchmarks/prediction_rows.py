"""Measures the rows of prediction.py."""

import argparse
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from map_sizes import size_rows
from process_memory import forget_peak, peak_mib
from report import Row, check_destination, median_row, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.feature_extraction.bands_only import window_side
from diffclip_dist.feature_extraction.encoder_source import CONTROL
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.mapping.predict import ClassMap, predict_map
from diffclip_dist.study.experiment import Task
from diffclip_dist.study.run_study import run_study
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

SHOTS: Final = 2


@dataclass(frozen=True)
class Effort:
    """How much is mapped.

    Attributes:
        side: of the generated scene in pixels; a second scene is as wide and twice as tall.
        strides: that are compared; the first is what the others are held against.
        repeats: of each, after one that warms up.
        block_bytes: bound on the values held at once, small enough that the scene takes several blocks.
        megapixels: of the scenes whose time and memory are measured, unless others are asked for.
    """

    side: int
    strides: tuple[int, ...]
    repeats: int
    block_bytes: int
    megapixels: tuple[float, ...]


QUICK: Final = Effort(side=48, strides=(1, 3), repeats=1, block_bytes=2 << 20, megapixels=(0.05,))
FULL: Final = Effort(side=128, strides=(1, 3, 5), repeats=3, block_bytes=16 << 20, megapixels=(0.66, 20.0))


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else FULL
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="diffclip-prediction-") as scratch:
        archive = generated_archive(Path(scratch) / "archive", effort.side)
        classifier = any_classifier(archive)
        rows = stride_rows(classifier, archive, effort) + height_rows(classifier, archive, effort)
        rows += size_rows(Path(scratch), arguments.megapixels or effort.megapixels, arguments.workers)
    for part, title in (
        ("strides", "Mapping a generated scene of 144 + 1 bands; medians (lowest to highest)"),
        ("heights", "Most memory while mapping, the process and its libraries included"),
        ("sizes", "The command predict with probabilities, by bands alone, on a generated tile repeated"),
    ):
        print_table(title, [{key: row[key] for key in row if key != "part"} for row in rows if row["part"] == part])
    if arguments.json is not None:
        window = window_side(classifier.fitted.encoder)
        config = {
            "scenes": "generated",
            "window_pixels": window,
            "weights": "random",
            "threads": torch.get_num_threads(),
            "processes_waiting_to_run_before": load,
        }
        write_json(arguments.json, config, rows)
    return EXIT_DONE


def generated_archive(folder: Path, side: int) -> Archive:
    """Two scenes with the bands of Houston2013, one twice as tall as the other."""
    scenes = [
        GeneratedScene(GeneratedSceneSpec(name, height, side, 144, 380.0, 1050.0))
        for name, height in (("square", side), ("tall", 2 * side))
    ]
    build_archive(scenes, folder, ArchiveSettings())
    return Archive.open(folder)


def any_classifier(archive: Archive) -> Classifier:
    """A classifier of the default configuration, quickly fitted."""
    task = Task((SHOTS,), 1, "random", "scratch")
    return run_study(archive, "square", CONTROL, task, FewshotConfig(), quick=True).classifier(SHOTS)


def with_stride(classifier: Classifier, stride: int) -> Classifier:
    """The same classifier, reading from windows so many pixels apart."""
    fewshot = replace(classifier.config.fewshot, stride=stride)
    return replace(classifier, config=replace(classifier.config, fewshot=fewshot))


def stride_rows(classifier: Classifier, archive: Archive, effort: Effort) -> list[Row]:
    """One row a stride."""
    maps: list[ClassMap] = []
    rows: list[Row] = []
    for stride in effort.strides:
        reader = with_stride(classifier, stride)
        predict_map(reader, archive["square"], effort.block_bytes)
        seconds = []
        for _ in range(effort.repeats):
            start = time.perf_counter()
            found = predict_map(reader, archive["square"], effort.block_bytes)
            seconds.append(time.perf_counter() - start)
        maps.append(found)
        windows = (-(-effort.side // stride)) ** 2
        rates = [{"pixels_per_s": found.size / each, "windows_per_s": windows / each} for each in seconds]
        rows.append(
            {
                "part": "strides",
                "stride_pixels": stride,
                **median_row(rates),
                "same_class_as_first_percent": 100.0 * float(np.mean(found == maps[0])),
            }
        )
    first = float(str(rows[0]["pixels_per_s"]))
    return [{**row, "faster_than_first_ratio": float(str(row["pixels_per_s"])) / first} for row in rows]


def height_rows(classifier: Classifier, archive: Archive, effort: Effort) -> list[Row]:
    """One row a scene: blocks bound what mapping holds, however tall the scene."""
    rows: list[Row] = []
    for name in ("square", "tall"):
        forget_peak()
        predict_map(classifier, archive[name], effort.block_bytes)
        record = archive.scene(name)
        rows.append(
            {
                "part": "heights",
                "height_pixels": record.height,
                "width_pixels": record.width,
                "block_mib": effort.block_bytes / 2**20,
                "peak_memory_mib": peak_mib(),
            }
        )
    return rows
