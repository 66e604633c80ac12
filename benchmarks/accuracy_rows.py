"""Makes the rows of accuracy.py from finished jobs, and compares them."""

import argparse
import multiprocessing
import os
import statistics
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

from accuracy_jobs import HEADS, Job, Measurement, Part, measured
from accuracy_plot import draw
from real_scenes import REAL
from report import Row, Value, check_destination, print_table, write_json
from scipy import stats

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, FewshotConfig
from diffclip_dist.fewshot.metrics import KAPPA, PERCENT, PERCENT_DIFFERENCE, summarise
from diffclip_dist.model.diffusion_config import DiffusionConfig, Target
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PUBLISHED
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene

GENERATED: Final = ("synthetic", "synthetic-hard", "synthetic-coarse")
DEFAULT: Final = ModelConfig()
ABLATED_SCENE: Final = "synthetic-hard"
# Steps are what two cores can take in the time: a published window costs some ten times one of the default
STEPS, PUBLISHED_STEPS, ABLATION_STEPS = 200, 40, 50
PUBLISHED_WINDOWS: Final = 2_000
WORKERS: Final = 2
TARGETS: Final[tuple[Target, ...]] = ("eps", "v")

BEST_CLASSICAL: Final = "the best classical row"
CLASSICAL: Final = ("1-NN, ", "SVM, ", "random forest, ", "LDA, ")
OURS: Final = "default, kernel head"
NO_NAMES: Final = "default, kernel head, no names"
# Each row against the one that shows what it brings
COMPARED: Final = (
    ("default, cosine head", "random weights, cosine head"),
    (OURS, NO_NAMES),
    ("default, kernel head, shuffled names", NO_NAMES),
    (OURS, "random weights, kernel head"),
    (OURS, "random weights, cosine head"),
    (OURS, "default, cosine head"),
    ("published, cosine head", "random weights, cosine head"),
    (OURS, BEST_CLASSICAL),
)
FEWER_LABELS: Final = 10
ALL_SCENES: Final = "all scenes"


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    places = scene_places(arguments.quick)
    for name, place in places.items():
        folder = arguments.keep / "archives" / name
        if not (folder / "manifest.json").exists():
            build_archive([open_scene(place)], folder, ArchiveSettings())
    jobs = job_list(tuple(places), arguments.quick)
    measurements = run_jobs(jobs, arguments.keep)
    figures, gains = figure_rows(measurements), gain_rows(measurements)
    plot = arguments.keep / "accuracy.png"
    draw(plot, figures)
    for scene in places:
        print_table(
            f"{scene}{' (generated)' * (scene in GENERATED)}: OA [95 % interval] / AA by shots, percent, on pixels "
            f"outside the shots (published: on {PUBLISHED_WINDOWS:,} of them); means over {figures[0]['seeds']} seeds",
            shown(figures, scene, lambda row: row["classifier"], _figures),
        )
    print_table(
        "Gains in OA over the same draws [95 % interval], points; p of a two-sided sign test",
        [
            found
            for scene in places
            for found in shown(gains, scene, lambda row: f"{row['classifier']} - {row['against']}", _gain)
        ],
    )
    means = mean_gain_rows(gains)
    print_table(
        f"The same, OA in points averaged over the {len(places)} scenes, by shots",
        shown(means, ALL_SCENES, lambda row: f"{row['classifier']} - {row['against']}", _mean_gain),
    )
    fewer = fewer_label_rows(measurements)
    print_table(f"Ours with a label for every {FEWER_LABELS} of the best classical row: OA, percent", fewer)
    print(f"plot  {plot}")
    if arguments.json is not None:
        config = {
            "quick": arguments.quick,
            "chosen_by": "head, timesteps, steps on generated scenes; description, kernel on shots; the rest by cost",
            "left_out": "the published encoder tuned on the shots; ablations beyond one generated scene",
            "fewer_tested": f"published is tested on {PUBLISHED_WINDOWS} evenly spread labelled pixels",
            "published": asdict(PUBLISHED),
            "default": asdict(DEFAULT),
            "jobs": [asdict(job) for job in jobs],
        }
        write_json(arguments.json, config, [*figures, *gains, *means, *fewer])
    return EXIT_DONE


def scene_places(quick: bool) -> dict[str, str]:
    """Name to what opens it, of every scene at hand."""
    if quick:
        return {GENERATED[0]: GENERATED[0]}
    data = Path(os.environ.get("DIFFCLIP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    return {name: name for name in GENERATED} | {name: str(data / name) for name in REAL if (data / name).is_dir()}


def job_list(scenes: Sequence[str], quick: bool) -> list[Job]:
    """The jobs, what matters most first."""
    shots, seeds = ((1, 2), 2) if quick else ((1, 2, 5, 10, 20), 10)
    fewshot = FewshotConfig(steps=5, views=1, statistics_windows=64) if quick else FewshotConfig()
    steps = 4 if quick else STEPS
    whole: tuple[Part, ...] = (*HEADS, "names", "frozen", "single")
    jobs = [Job("default", scene, whole, shots, seeds, DEFAULT, steps, fewshot) for scene in scenes]
    jobs += [Job("random weights", scene, (*HEADS, "frozen"), shots, seeds, DEFAULT, 0, fewshot) for scene in scenes]
    jobs += [Job("classical", scene, ("classical",), shots, seeds) for scene in scenes]
    if quick:
        return jobs
    # the paper's read-out; its encoder stays frozen, for tuning it in 50 classifiers a scene would take hours, and so
    # there is less to learn in steps
    frozen = replace(FEWSHOT_PRESETS["published"], tune_encoder=False, views=1, steps=fewshot.steps)
    parts: tuple[Part, ...] = ("cosine", "frozen")
    jobs += [
        Job("published", one, parts, shots, seeds, PUBLISHED, PUBLISHED_STEPS, frozen, windows=PUBLISHED_WINDOWS)
        for one in scenes
    ]
    changed = {f"mask {ratio}": replace(DEFAULT, mask_ratio=ratio) for ratio in (0.5, 0.7, 0.85, 0.95)}
    changed |= {f"window {side}": replace(DEFAULT, window=side) for side in (5, 7, 11, 15)}
    changed |= {f"masked weight {weight}": replace(DEFAULT, masked_weight=weight) for weight in (0.1, 10.0)}
    changed |= {f"target {target}": replace(DEFAULT, diffusion=DiffusionConfig(target=target)) for target in TARGETS}
    changed |= {
        f"t up to {last}": replace(DEFAULT, diffusion=DiffusionConfig(highest_timestep=last)) for last in (99, 499, 999)
    }
    changed |= {"min-SNR": replace(DEFAULT, diffusion=DiffusionConfig(weighting="min_snr"))}
    changed |= {"joint": replace(DEFAULT, fusion="joint")}
    changed |= {"joint, dropout 0.2": replace(DEFAULT, fusion="joint", modality_dropout=0.2)}
    changed |= {"wavelength stem": replace(DEFAULT, stem="wavelength")}
    ablation = Job("", ABLATED_SCENE, HEADS, (2,), seeds, DEFAULT, ABLATION_STEPS, fewshot)
    jobs += [replace(ablation, label=f"ablation: {said}", model=model) for said, model in changed.items()]
    jobs += [replace(ablation, label=f"ablation: {count} steps", steps=count) for count in (25, 100, 200, 400)]
    jobs += [
        replace(ablation, label=f"ablation: {share:.0%} of pixels", pixel_share=share) for share in (0.01, 0.1, 1.0)
    ]
    jobs += [
        replace(ablation, label=f"ablation: read-out {said}", fewshot=replace(fewshot, readout=said))
        for said in ("class", "both")
    ]
    jobs += [
        replace(ablation, label=f"ablation: smoothing {rounds}", fewshot=replace(fewshot, smoothing=rounds))
        for rounds in (0, 1)
    ]
    equal = replace(fewshot, class_priors="equal")
    jobs += [
        Job("default, equal class priors", one, ("kernel",), shots, seeds, DEFAULT, steps, equal) for one in scenes
    ]
    shots_alone = replace(fewshot, discriminant=False)
    jobs += [
        Job("default, no discriminant", one, ("kernel",), shots, seeds, DEFAULT, steps, shots_alone) for one in scenes
    ]
    return jobs


def run_jobs(jobs: Sequence[Job], keep: Path) -> list[Measurement]:
    """Runs the jobs, two at a time with a thread each; measurements in the order of the jobs."""
    found: dict[int, list[Measurement]] = {}
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(measured, job, keep): number for number, job in enumerate(jobs)}
        for done in as_completed(waiting):
            found[waiting[done]] = done.result()
            job = jobs[waiting[done]]
            print(f"{len(found)} of {len(jobs)} done: {job.label} on {job.scene}", flush=True)
    return [one for number in sorted(found) for one in found[number]]


def figure_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """A row a measurement: means and intervals."""
    rows: list[Row] = []
    for one in measurements:
        row: dict[str, str | int | float | bool | None] = {
            "part": "figures", "classifier": one.row, "scene": one.scene, "generated": one.scene in GENERATED,
            "shots": one.shots, "seeds": len(one.oa_percent),
        }  # fmt: skip
        for name, unit, values, limits in (
            ("oa", "percent", one.oa_percent, PERCENT), ("aa", "percent", one.aa_percent, PERCENT),
            ("kappa", "fraction", one.kappa, KAPPA),
        ):  # fmt: skip
            found = summarise(list(values), limits)
            low, high = found.ci95 or (found.mean, found.mean)
            row |= {f"{name}_{unit}": found.mean, f"{name}_from_{unit}": low, f"{name}_to_{unit}": high}
        rows.append(row)
    return rows


def gain_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """A row for each comparison, scene and count of shots: the difference in OA, paired by seed."""
    by_place = {(one.row, one.scene, one.shots): one for one in measurements}
    rows: list[Row] = []
    for scene, shots in dict.fromkeys((one.scene, one.shots) for one in measurements):
        for name, against in COMPARED:
            one = by_place.get((name, scene, shots))
            other = by_place.get((against, scene, shots))
            if against == BEST_CLASSICAL:
                other = best_classical(measurements, scene, shots)
            if one is None or other is None:
                continue
            gains = [mine - theirs for mine, theirs in zip(one.oa_percent, other.oa_percent, strict=True)]
            found = summarise(gains, PERCENT_DIFFERENCE)
            low, high = found.ci95 or (found.mean, found.mean)
            wins, ties = sum(gain > 0 for gain in gains), sum(gain == 0 for gain in gains)
            decided = len(gains) - ties
            rows.append(
                {
                    "part": "gains", "classifier": name, "against": against, "against_row": other.row, "scene": scene,
                    "shots": shots, "gain_oa_percent": found.mean, "gain_oa_from_percent": low,
                    "gain_oa_to_percent": high,
                    "sign_test_fraction": float(stats.binomtest(wins, decided).pvalue) if decided else 1.0,
                }
            )  # fmt: skip
    return rows


def mean_gain_rows(gains: Sequence[Row]) -> list[Row]:
    """A row for each comparison and count of shots: its gain averaged over the scenes."""
    by_place: dict[tuple[Value, Value, Value], list[float]] = {}
    for row in gains:
        gained = by_place.setdefault((row["classifier"], row["against"], row["shots"]), [])
        gained.append(float(str(row["gain_oa_percent"])))
    return [
        {
            "part": "mean gains", "classifier": name, "against": against, "scene": ALL_SCENES, "shots": shots,
            "scenes": len(gained), "gain_oa_percent": statistics.fmean(gained),
        }
        for (name, against, shots), gained in by_place.items()
    ]  # fmt: skip


def best_classical(measurements: Sequence[Measurement], scene: str, shots: int) -> Measurement | None:
    """The classical row with the highest mean OA; its choice looks at the test, which favours it."""
    rows = [one for one in measurements if one.row.startswith(CLASSICAL) and (one.scene, one.shots) == (scene, shots)]
    return max(rows, key=lambda one: statistics.fmean(one.oa_percent), default=None)


def fewer_label_rows(measurements: Sequence[Measurement]) -> list[Row]:
    """Ours at k shots beside the best classical row at ten times as many."""
    rows: list[Row] = []
    for one in (one for one in measurements if one.row == OURS):
        many = best_classical(measurements, one.scene, FEWER_LABELS * one.shots)
        if many is not None:
            rows.append(
                {
                    "part": "fewer labels", "scene": one.scene, "shots": one.shots, "classical_shots": many.shots,
                    "classical": many.row, "oa_percent": statistics.fmean(one.oa_percent),
                    "classical_oa_percent": statistics.fmean(many.oa_percent),
                }
            )  # fmt: skip
    return rows


def shown(
    rows: Sequence[Row], scene: str, named: Callable[[Row], Value], cell: Callable[[Row], str]
) -> list[dict[str, Value]]:
    """A scene's rows as they fit a terminal: a line a classifier, a column a count of shots."""
    lines: dict[Value, dict[str, Value]] = {}
    for row in rows:
        if row["scene"] == scene and cell(row):
            name = named(row)
            lines.setdefault(name, {"scene": scene, "classifier": name})[f"{row['shots']}"] = cell(row)
    return list(lines.values())


def _figures(row: Row) -> str:
    low, high = row["oa_from_percent"], row["oa_to_percent"]
    return f"{row['oa_percent']:.1f} [{low:.1f}, {high:.1f}] / {row['aa_percent']:.1f}"


def _gain(row: Row) -> str:
    low, high = row["gain_oa_from_percent"], row["gain_oa_to_percent"]
    return f"{row['gain_oa_percent']:+.1f} [{low:+.1f}, {high:+.1f}] p {row['sign_test_fraction']:.3f}"


def _mean_gain(row: Row) -> str:
    return f"{row['gain_oa_percent']:+.1f}"
