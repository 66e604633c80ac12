"""Fetches the paper's sets, runs its protocol and sets our differences beside the published one."""

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

from accuracy_jobs import Job, Measurement, Part
from accuracy_rows import built_archive, run_jobs
from report import Row, Value, check_destination, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.class_text import check_text_kind
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS
from diffclip_dist.fewshot.metrics import PERCENT, PERCENT_DIFFERENCE, Summary, summarise
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PUBLISHED
from shards.archive.manifest import SceneRecord
from shards.errors import BadInput, FailedRun
from shards.open_scene import open_scene
from shards.scene.source import SceneSource

SETS: Final = ("houston2013", "trento", "muufl")
# DiffCLIP over CLIP, mean of three sets (arXiv 2412.07119)
PAPER_GAIN_POINTS, PAPER_SHOTS = 10.65, 2
MODELS: Final = {"published": PUBLISHED, "default": ModelConfig()}
ALIGNMENT: Final = "alignment alone"
UNTRAINED: Final = "{}, without pretraining"
QUICK_SCENE: Final = "synthetic"
ALL: Final = "all scenes"


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    asked = Asked.of(arguments)
    sources = scene_sources(asked.scenes)
    scenes = built_scenes(sources, arguments.keep)
    jobs = [
        replace(job, scene=name, setting="official" if record.official_split else "random")
        for job in job_list(asked)
        for name, record in scenes.items()
    ]
    done = run_jobs(jobs, sources, arguments.keep, asked.workers, None)
    notes = {name: note(record, bool(asked.scenes)) for name, record in scenes.items()}
    measurements = [one for found in done.values() for one in found if one.shots in asked.shots]
    rows = figure_rows(measurements, notes)
    differences = difference_rows(measurements, notes, asked.presets)
    shown = [{**by_name(row), "oa / aa, percent": _figures(row)} for row in rows]
    print_table("OA [95 % interval over draws] / AA", shown)
    print_table("paired differences in OA, points [95 % interval over draws; of means: over scenes]", [
        {**by_name(row), "against": row["against"], "oa, points": _gain(row)} for row in differences
    ])  # fmt: skip
    for row in differences:
        if row["scene"] == ALL and row["against"] == ALIGNMENT and row["shots"] == PAPER_SHOTS:
            print(
                f"{row['classifier']} less {ALIGNMENT}, {PAPER_SHOTS} shots: {_gain(row)} points of OA ({row['note']})"
            )
            print(f"the paper: {PAPER_GAIN_POINTS:+} (DiffCLIP less CLIP, mean of {', '.join(SETS)})")
    if len(done) < len(jobs):
        print(f"{len(jobs) - len(done)} of {len(jobs)} jobs gave no figures")
    if arguments.json is not None:
        config = {**asdict(asked), "paper_gain_oa_points": PAPER_GAIN_POINTS, "paper_shots": PAPER_SHOTS}
        write_json(arguments.json, config, [*rows, *differences])
    return EXIT_DONE


@dataclass(frozen=True)
class Asked:
    """What the command line asks for.

    Attributes:
        scenes: stand-ins; empty for the paper's sets.
        shots: labelled pixels a class, ascending.
        repeats: draws of each.
        presets: names of `MODELS`.
        steps: of pretraining.
        epochs: of the published second stage.
        windows: tested a draw; None for all.
        text: frozen text of the alignment alone; empty for the sentence model's.
        workers: jobs at a time.
    """

    scenes: tuple[str, ...]
    shots: tuple[int, ...]
    repeats: int
    presets: tuple[str, ...]
    steps: int
    epochs: int
    windows: int | None
    text: str
    workers: int

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> "Asked":
        """Checks the options.

        Raises:
            BadInput: an option cannot be used.
        """
        presets = tuple(arguments.presets.split(","))
        for preset in presets:
            if preset not in MODELS:
                raise BadInput(f"--presets: expected names of {', '.join(MODELS)}, found {preset}")
        if not all(one.isdecimal() and int(one) for one in arguments.shots.split(",")):
            raise BadInput(f"--shots: expected numbers of at least 1 with commas between, found {arguments.shots}")
        for name, least in (("repeats", 2), ("steps", 1), ("epochs", 1), ("windows", 0), ("workers", 1)):
            if getattr(arguments, name) < least:
                raise BadInput(f"--{name}: expected at least {least}, found {getattr(arguments, name)}")
        if arguments.text:
            check_text_kind(arguments.text)
        shots = tuple(sorted({int(one) for one in arguments.shots.split(",")}))
        asked = cls(
            tuple(arguments.scene or ()), shots, arguments.repeats, presets, arguments.steps, arguments.epochs,
            arguments.windows or None, arguments.text, arguments.workers,
        )  # fmt: skip
        if arguments.quick:
            scenes = asked.scenes or (QUICK_SCENE,)
            return replace(asked, scenes=scenes, shots=shots[:1], repeats=2, steps=1, epochs=1, windows=4)
        return asked


def scene_sources(stand_ins: Sequence[str]) -> dict[str, Callable[[], SceneSource]]:
    """Name to what opens it, of the sets or of what stands in for them."""
    places = {Path(spec).resolve().stem: spec for spec in stand_ins} or {name: name for name in SETS}
    return {name: partial(open_scene, place) for name, place in places.items()}


def built_scenes(sources: Mapping[str, Callable[[], SceneSource]], keep: Path) -> dict[str, SceneRecord]:
    """Archives of the scenes: name to record.

    Raises:
        BadInput: a set cannot be fetched; a stand-in cannot be opened or has no labels.
    """
    found = {}
    for name, source in sources.items():
        try:
            (found[name],) = built_archive(name, source, keep).manifest.scenes
        except FailedRun as error:
            raise BadInput(f"{error}; fetch it once with a network, or give --scene a stand-in") from None
        if not found[name].classes:
            raise BadInput(f"--scene {name}: has no labels; expected a labelled scene")
    return found


def job_list(asked: Asked) -> list[Job]:
    """The jobs of one scene, fewer shots first."""
    published = replace(FEWSHOT_PRESETS["published"], steps=asked.epochs)
    parts: dict[str, tuple[Part, ...]] = {"published": ("learned text",), "default": ("names",)}
    fewshot = {"published": published, "default": FEWSHOT_PRESETS["default"]}
    jobs = []
    for shots in asked.shots:
        alone = Job(
            ALIGNMENT, "", ("frozen text",), "random", (shots,), asked.repeats, PUBLISHED, fewshot=published,
            windows=asked.windows, text=asked.text,
        )  # fmt: skip
        jobs.append(alone)
        for preset in asked.presets:
            of_preset = replace(
                alone, label=preset, parts=parts[preset], model=MODELS[preset], fewshot=fewshot[preset], text=""
            )
            jobs.append(replace(of_preset, steps=asked.steps))
            jobs.append(replace(of_preset, label=UNTRAINED.format(preset)))
    return jobs


def note(record: SceneRecord, stand_in: bool) -> str:
    """What a reader must know of a scene."""
    said = ["stand-in for the paper's sets"] * stand_in + ["generated"] * record.generated
    return ", ".join(said) or "the paper's set"


def figure_rows(measurements: Sequence[Measurement], notes: Mapping[str, str]) -> list[Row]:
    """A row a classifier, scene and count of shots: means and 95 % intervals over draws."""
    rows: list[Row] = []
    for one in measurements:
        row: dict[str, Value] = {
            "part": "figures", "scene": one.scene, "note": notes[one.scene], "setting": one.setting, "shots": one.shots,
            "classifier": one.row, "draws": len(one.oa_percent), "aa_percent": statistics.fmean(one.aa_percent),
        }  # fmt: skip
        rows.append(row | _interval("oa", summarise(list(one.oa_percent), PERCENT)))
    return rows


def difference_rows(measurements: Sequence[Measurement], notes: Mapping[str, str], presets: Sequence[str]) -> list[Row]:
    """Each preset less the alignment alone, and less the same without pretraining: by scene, and over the scenes."""
    by_place = {(one.row, one.scene, one.shots): one for one in measurements}
    rows: list[Row] = []
    for shots in sorted({one.shots for one in measurements}):
        for preset in presets:
            for against in (ALIGNMENT, UNTRAINED.format(preset)):
                means: dict[str, float] = {}
                for scene, said in notes.items():
                    one, other = by_place.get((preset, scene, shots)), by_place.get((against, scene, shots))
                    if one is None or other is None:
                        continue
                    gains = [a - b for a, b in zip(one.oa_percent, other.oa_percent, strict=True)]
                    means[scene] = statistics.fmean(gains)
                    rows.append(_difference(scene, said, shots, preset, against, gains))
                if means:
                    said = f"mean of {len(means)}: " + "; ".join(f"{scene}: {notes[scene]}" for scene in means)
                    rows.append(_difference(ALL, said, shots, preset, against, list(means.values())))
    return rows


def _difference(scene: str, said: str, shots: int, name: str, against: str, gains: list[float]) -> Row:
    row: dict[str, Value] = {
        "part": "differences", "scene": scene, "note": said, "shots": shots, "classifier": name, "against": against,
    }  # fmt: skip
    return row | _interval("oa_gain", summarise(gains, PERCENT_DIFFERENCE))


def _interval(name: str, found: Summary) -> dict[str, Value]:
    low, high = found.ci95 or (found.mean, found.mean)
    return {f"{name}_percent": found.mean, f"{name}_from_percent": low, f"{name}_to_percent": high}


def by_name(row: Row) -> dict[str, Value]:
    """What a line of a table begins with."""
    return {key: row[key] for key in ("scene", "note", "shots", "classifier")}


def _figures(row: Row) -> str:
    low, high = row["oa_from_percent"], row["oa_to_percent"]
    return f"{row['oa_percent']:.1f} [{low:.1f}, {high:.1f}] / {row['aa_percent']:.1f}"


def _gain(row: Row) -> str:
    low, high = row["oa_gain_from_percent"], row["oa_gain_to_percent"]
    return f"{row['oa_gain_percent']:+.2f} [{low:+.1f}, {high:+.1f}]"
