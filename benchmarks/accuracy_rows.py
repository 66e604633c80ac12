"""Runs the jobs of accuracy.py, and prints and writes what they gave."""

import argparse
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Final

from accuracy_compare import (
    OURS,
    PUBLISHED,
    RANDOM,
    SHIPPED,
    difference_rows,
    figure_rows,
    mean_difference_rows,
    mean_rows,
    with_choices,
)
from accuracy_jobs import Job, Measurement, Setting, kept_file, measured
from accuracy_plot import draw
from pixel_classifiers import PIXEL_ROWS
from real_scenes import REAL
from report import Row, Value, check_destination, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, FewshotConfig
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PUBLISHED as PUBLISHED_MODEL
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.errors import BadInput
from shards.open_scene import open_scene
from shards.scene.source import SceneSource
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

GENERATED: Final = ("synthetic", "synthetic-hard", "synthetic-coarse")
QUICK: Final = GeneratedSceneSpec(name="synthetic-small", height=64, width=80, bands=24)
SHOTS: Final = (1, 2, 5)
DRAWS: Final = 10
# Each of these is a classifier of its own to fit and a scene to map
CROSS_DRAWS: Final = 5
STEPS: Final = 200  # of pretraining: what two cores can take in the time
# An encoder tuned on each draw reads each window anew
PUBLISHED_SHOTS, PUBLISHED_WINDOWS = (2,), 300
_UNITS: Final = {
    "figures": "OA [95 % interval over draws] / AA, percent, by shots",
    "means": "OA / AA, percent, by shots",
    "mean differences": "OA [95 % interval over scenes] / AA, points, by shots",
}


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    sources = scene_sources(arguments.quick)
    jobs = job_list(tuple(sources), arguments.quick)
    done = run_jobs(jobs, sources, arguments.keep, arguments.workers, arguments.minutes)
    generated = [name for name in sources if name not in REAL]
    rows = rows_of(done, generated)
    plot = arguments.keep / "accuracy.png"
    draw(plot, [row for row in rows if row["part"] == "figures"])
    print_tables(rows)
    left = len(jobs) - len(done)
    if left:
        print(f"{left} of {len(jobs)} jobs are left; the same command goes on with them")
    print(f"plot  {plot}")
    if arguments.json is not None:
        config = {
            "quick": arguments.quick,
            "jobs_left": left,
            "chosen_by": "settings by generated scenes; description and kernel by each draw's shots; never by a test",
            "published": f"frozen text of the sentence model, encoder tuned, {PUBLISHED_WINDOWS} windows tested a draw",
            "default": asdict(ModelConfig()),
            "jobs": [asdict(job) for job in done],
        }
        write_json(arguments.json, config, rows)
    return EXIT_DONE


def built_archive(name: str, source: Callable[[], SceneSource], keep: Path) -> Archive:
    """A scene's archive, built where it is not there yet."""
    folder = keep / "archives" / name
    if not (folder / "manifest.json").exists():
        build_archive([source()], folder, ArchiveSettings())
    return Archive.open(folder)


def rows_of(done: dict[Job, list[Measurement]], generated: Sequence[str]) -> list[Row]:
    """All rows of the JSON."""
    measurements = with_choices([one for found in done.values() for one in found], generated)
    return [
        *figure_rows(measurements, generated), *mean_rows(measurements, generated),
        *difference_rows(measurements, generated), *mean_difference_rows(measurements, generated),
    ]  # fmt: skip


def scene_sources(quick: bool) -> dict[str, Callable[[], SceneSource]]:
    """Name to what opens it, of every scene at hand: the real ones, then the generated ones."""
    if quick:
        return {QUICK.name: lambda: GeneratedScene(QUICK)}
    data = Path(os.environ.get("DIFFCLIP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    places = {name: str(data / name) for name in REAL if (data / name).is_dir()} | {name: name for name in GENERATED}
    return {name: partial(open_scene, place) for name, place in places.items()}


def job_list(scenes: Sequence[str], quick: bool) -> list[Job]:
    """The jobs, what matters most first: by kind, and of a kind the real scenes first."""
    shots, draws, steps = ((1, 2), 2, 2) if quick else (SHOTS, DRAWS, STEPS)
    fewshot = FewshotConfig(steps=3, views=1, statistics_windows=64) if quick else FewshotConfig()
    ours = Job(RANDOM, "", ("names", "no names"), "random", shots, draws, fewshot=fewshot)
    pretrained = replace(ours, label=OURS, parts=("names", "no names", "equal priors"), steps=steps)
    shipped = replace(ours, label=SHIPPED, shipped=True)
    published = Job(
        PUBLISHED, "", ("frozen text",), "random", PUBLISHED_SHOTS, draws, PUBLISHED_MODEL,
        fewshot=replace(FEWSHOT_PRESETS["published"], steps=1 if quick else FEWSHOT_PRESETS["published"].steps),
        windows=4 if quick else PUBLISHED_WINDOWS,
    )  # fmt: skip
    # each classifier of a kernel head reads both halves anew
    across = min(draws, CROSS_DRAWS)
    kinds = [
        *_pixel_jobs("random", shots, draws), shipped, ours, replace(ours, parts=("shuffled names",)), pretrained,
        *_pixel_jobs("blocks", shots, draws), replace(ours, setting="blocks"),
        replace(ours, parts=("cosine head",)), replace(ours, label=OURS, parts=("cosine head",), steps=steps),
        published, *_pixel_jobs("cross-scene", shots, across), replace(ours, setting="cross-scene", seeds=across),
    ]  # fmt: skip
    real = [name for name in scenes if name in REAL]
    others = [name for name in scenes if name not in REAL]
    return [replace(kind, scene=scene) for group in (real, others) for kind in kinds for scene in group]


def _pixel_jobs(setting: Setting, shots: tuple[int, ...], draws: int) -> list[Job]:
    rows = [row for row in PIXEL_ROWS if not (row.within_scene and setting == "cross-scene")]
    return [Job(row.name, "", ("pixels",), setting, shots, draws) for row in rows]


def run_jobs(
    jobs: Sequence[Job],
    sources: Mapping[str, Callable[[], SceneSource]],
    keep: Path,
    workers: int,
    minutes: float | None,
) -> dict[Job, list[Measurement]]:
    """Runs the jobs with a thread each; those kept from an earlier run are read.

    Args:
        jobs: what matters most first.
        sources: name to what opens the scene; an archive is built when its first job starts.
        keep: folder of archives, encoders and finished jobs.
        workers: jobs at a time.
        minutes: after which no further job is started; None for no limit.
    """
    found = {}
    for job in jobs:
        if (keep / "archives" / job.scene / "manifest.json").exists():
            fingerprint = built_archive(job.scene, sources[job.scene], keep).fingerprint
            if kept_file(job, keep, fingerprint).exists():
                found[job] = measured(job, keep)
    waiting = [job for job in jobs if job not in found]
    ends = time.monotonic() + 60 * minutes if minutes is not None else float("inf")
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        running: dict[Future[list[Measurement]], Job] = {}
        while running or (waiting and time.monotonic() < ends):
            while waiting and len(running) < workers and time.monotonic() < ends:
                job = waiting.pop(0)
                built_archive(job.scene, sources[job.scene], keep)
                running[pool.submit(measured, job, keep)] = job
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                job = running.pop(ended)
                try:
                    found[job] = ended.result()
                except BadInput as fault:  # such as too few blocks for the classes: no row, and the reason
                    print(f"left out: {job.label}, {job.setting}, {job.scene}: {fault}", flush=True)
                    continue
                print(f"{len(found)} of {len(jobs)}: {job.label} ({', '.join(job.parts)}), {job.setting}, {job.scene}",
                      flush=True)  # fmt: skip
    return {job: found[job] for job in jobs if job in found}


def print_tables(rows: Sequence[Row]) -> None:
    """Prints figures by scene and setting, means over scenes, and what rows bring."""

    def show(part: str, title: str, named: Callable[[Row], Value], cell: Callable[[Row], str]) -> None:
        places: dict[tuple[Value, ...], list[Row]] = {}
        for row in rows:
            if row["part"] == part:
                places.setdefault((row.get("scene"), row["setting"], row["generated"]), []).append(row)
        for (scene, setting, generated), mine in places.items():
            made = " (generated)" * bool(generated)
            print_table(f"{scene or title}{made}, {setting}: {_UNITS[part]}", by_shots(mine, named, cell))

    show("figures", "", lambda row: row["classifier"], _figures)
    show("means", "mean over scenes", lambda row: row["classifier"], _figures)
    show("mean differences", "paired differences", lambda row: f"{row['classifier']} - {row['against']}", _gain)


def by_shots(rows: Iterable[Row], named: Callable[[Row], Value], cell: Callable[[Row], str]) -> list[dict[str, Value]]:
    """A line a classifier, a column a count of shots."""
    lines: dict[Value, dict[str, Value]] = {}
    for row in rows:
        line = lines.setdefault(named(row), {"classifier": named(row), "sees": row.get("sees")})
        line[f"{row['shots']}"] = cell(row)
    return list(lines.values())


def _figures(row: Row) -> str:
    interval = f" [{row['oa_from_percent']:.1f}, {row['oa_to_percent']:.1f}]" if "oa_from_percent" in row else ""
    return f"{row['oa_percent']:.1f}{interval} / {row['aa_percent']:.1f}"


def _gain(row: Row) -> str:
    low, high = row["oa_gain_scenes_from_percent"], row["oa_gain_scenes_to_percent"]
    return f"{row['oa_gain_percent']:+.1f} [{low:+.1f}, {high:+.1f}] / {row['aa_gain_percent']:+.1f}"
