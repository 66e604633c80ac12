"""Measures the rows of many_scenes.py.

Shapes: P pixels, M modalities, F features, J = M * F.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from kept_jobs import digest, kept
from real_scenes import REAL, completed
from report import HIGHEST, LOWEST, Row, Value, check_destination, print_table, write_json
from torch.nn.functional import normalize

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.reading import ReadPixels, read_pixels
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene, view_scene
from diffclip_dist.fewshot.episodes import Reference, draw_episode
from diffclip_dist.fewshot.fewshot_config import FewshotConfig, HeadKind
from diffclip_dist.fewshot.metrics import PERCENT_DIFFERENCE, score, summarise
from diffclip_dist.fewshot.names_prior import WITHOUT_WORDS
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import preset_model
from diffclip_dist.model.saved_encoder import load_encoder, new_encoder
from diffclip_dist.study.experiment import Task, run_task
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.single_process import pretrain_single_process
from shards.archive.archive import Scene
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.build.load_scene import load_scene
from shards.open_scene import open_scene
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes, SceneSource
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

Readout = Literal["kernel head", "cosine head", "nearest neighbour in features"]

Place = Literal["inside", "outside", "other sensor"]
READOUTS: Final[tuple[Readout, ...]] = ("kernel head", "cosine head", "nearest neighbour in features")

# Bands, first and last wavelength in nm; generated scenes take them in turn
SENSORS: Final = ((64, 400, 2500), (24, 420, 960), (100, 400, 1000), (13, 440, 2200), (40, 400, 2400), (7, 480, 2200))
UNSEEN_SENSOR: Final = (32, 390, 1050)
# of GeneratedSceneSpec; each scene draws its own, evenly
VARIED: Final = {"overlap": (0.1, 0.7), "variation": (0.2, 0.7), "roughness": (0.4, 0.9), "noise": (0.008, 0.03)}
FIRST_SEED: Final = 100
UNLABELLED: Final = ("unlabelled/aviris.yaml", "unlabelled/muufl.yaml")


MASK_DIFFUSION: Final = "mask diffusion"
CONTRAST: Final = "contrast of parts"
_ANY_SENSOR: Final = ModelConfig(stem="wavelength")
# What encoders learn by; they have the same sizes
MODELS: Final = {MASK_DIFFUSION: _ANY_SENSOR, CONTRAST: preset_model("contrast")}


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        encoders: objective, number of generated scenes and steps of each encoder; the first one is tested on real
            scenes, beside one that saw them too.
        side: of a generated scene, in pixels.
        tested: most windows that are tested, evenly spread over a scene's labelled pixels.
        shots: labelled pixels a class.
        seeds: draws of each.
        global_batch: windows a step.
        fewshot: read-out and training of the heads.
    """

    encoders: tuple[tuple[str, int, int], ...] = (
        (CONTRAST, 10, 150), (MASK_DIFFUSION, 10, 150), (CONTRAST, 1, 150), (CONTRAST, 3, 150), (CONTRAST, 30, 150),
        (CONTRAST, 10, 50), (CONTRAST, 10, 450),
    )  # fmt: skip
    side: int = 64
    tested: int = 250
    shots: tuple[int, ...] = (1, 2, 5)
    seeds: int = 5
    global_batch: int = 128
    fewshot: FewshotConfig = field(default_factory=FewshotConfig)


FULL: Final = Effort()
QUICK: Final = Effort(
    encoders=((CONTRAST, 2, 4), (MASK_DIFFUSION, 1, 4)), side=40, tested=20, shots=(1, 2), seeds=2, global_batch=64,
    fewshot=FewshotConfig(steps=4, views=1, statistics_windows=32),
)  # fmt: skip


@dataclass(frozen=True)
class Pretraining:
    """One encoder: what it learned by, the scenes that it saw, and for how long."""

    objective: str
    scenes: tuple[str, ...]
    steps: int


@dataclass(frozen=True)
class Test:
    """One encoder on one scene, beside random weights."""

    pretraining: Pretraining
    place: Place
    scene: str


@dataclass(frozen=True)
class Scenes:
    """What is at hand, by name, and what is measured with it.

    Attributes:
        sources: of the scenes.
        tests: encoders and the scenes that each is tested on.
    """

    sources: dict[str, SceneSource]
    tests: tuple[Test, ...]


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    torch.set_num_threads(1)  # the same order of sums on any machine
    effort = QUICK if arguments.quick else FULL
    scenes = with_real_scenes(effort) if arguments.data else generated_scenes(effort)
    rows: list[Row] = []
    for number, test in enumerate(scenes.tests, start=1):
        rows += _rows(test, scenes, effort, arguments.keep)
        seen = test.pretraining
        print(
            f"{number} of {len(scenes.tests)} done: {test.scene}, {seen.objective}, {len(seen.scenes)} scenes",
            flush=True,
        )
    means = mean_rows(rows)
    print_table(
        "Gain in OA of pretraining over random weights, the same draws [95 % interval over them], points", means
    )
    if arguments.json is not None:
        config = asdict(effort) | {
            "data": arguments.data,
            "sensors": SENSORS,
            "tests": [asdict(t) for t in scenes.tests],
        }
        write_json(arguments.json, config, [*rows, *means])
    return EXIT_DONE


def generated_scenes(effort: Effort) -> Scenes:
    """Scenes of all sensors to pretrain over, and places inside, outside, and of other sensors."""
    sources = _places(max(count for _, count, _ in effort.encoders), effort.side)
    outside = {
        f"elsewhere-{number}": generated_place(f"elsewhere-{number}", number, effort.side) for number in range(2)
    }
    bands, first_nm, last_nm = UNSEEN_SENSOR
    other: dict[str, SceneSource] = {
        "another-sensor": GeneratedScene(
            GeneratedSceneSpec(
                "another-sensor", effort.side, effort.side, bands, first_nm, last_nm, seed=303, labelled=1.0,
                noise=0.03, overlap=0.4,
            )
        ),
        "from-orbit": CoarseScene(CoarseSceneSpec("from-orbit", effort.side, effort.side, labelled=1.0)),
    }  # fmt: skip
    tests = []
    for objective, count, steps in effort.encoders:
        pretraining = Pretraining(objective, tuple(sources)[:count], steps)
        tests += [Test(pretraining, "inside", scene) for scene in pretraining.scenes[:2]]
        tests += [Test(pretraining, "outside", scene) for scene in outside]
        tests += [Test(pretraining, "other sensor", scene) for scene in other]
    return Scenes(sources | outside | other, tuple(tests))


def _places(count: int, side: int) -> dict[str, SceneSource]:
    """Generated scenes to pretrain over, by name."""
    return {f"place-{number}": generated_place(f"place-{number}", FIRST_SEED + number, side) for number in range(count)}


def generated_place(name: str, seed: int, side: int) -> GeneratedScene:
    """A generated scene of one of the sensors, as hard to tell as its seed draws."""
    random = np.random.default_rng(seed)
    drawn = {field: float(random.uniform(*limits)) for field, limits in VARIED.items()}
    bands, first_nm, last_nm = SENSORS[(seed - FIRST_SEED) % len(SENSORS)]
    return GeneratedScene(
        GeneratedSceneSpec(name, side, side, bands, first_nm, last_nm, seed=seed, labelled=1.0, **drawn)
    )


def with_real_scenes(effort: Effort) -> Scenes:
    """Every labelled real scene: outside of a set of generated ones, and inside of one of these and all real ones."""
    data = Path(os.environ.get("DIFFCLIP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    objective, count, steps = effort.encoders[0]
    places = _places(count, effort.side)
    labelled: dict[str, SceneSource] = {name: _real(data / name) for name in REAL if (data / name).is_dir()}
    more: dict[str, SceneSource] = {
        Path(file).stem: open_scene(str(data / file)) for file in UNLABELLED if (data / file).is_file()
    }
    sources = places | labelled | more
    alone = Pretraining(objective, tuple(places), steps)
    everything = Pretraining(objective, tuple(sources), steps)
    tests = [Test(alone, "outside", scene) for scene in labelled]
    return Scenes(sources, (*tests, *(Test(everything, "inside", scene) for scene in labelled)))


def _real(folder: Path) -> ArrayScene:
    """A real scene with the wavelengths that its files leave open, so that the stem knows them."""
    scene = completed(load_scene(open_scene(str(folder))), REAL[folder.name])
    record = scene.record
    values = {
        name: np.where(scene.valid[name][..., None], array.astype(np.float32), np.float32(np.nan))
        for name, array in scene.values.items()
    }
    known = {one.name: one.wavelengths_nm for one in record.modalities if one.wavelengths_nm is not None}
    return ArrayScene(folder.name, values, known, Classes(record.classes), scene.labels)


def _rows(test: Test, scenes: Scenes, effort: Effort, keep: Path) -> list[Row]:
    """A row a read-out and count of shots."""
    pretrained = _measured(test.scene, test.pretraining, scenes, effort, keep)
    at_random = _measured(test.scene, None, scenes, effort, keep)
    rows: list[Row] = []
    for readout in READOUTS:
        for place, shots in enumerate(effort.shots):
            ours, control = pretrained[readout][place], at_random[readout][place]
            gains = [one - other for one, other in zip(ours, control, strict=True)]
            rows.append(
                {
                    "part": "scenes", "objective": test.pretraining.objective,
                    "pretraining_scenes": len(test.pretraining.scenes),
                    "windows": test.pretraining.steps * effort.global_batch, "place": test.place, "scene": test.scene,
                    "readout": readout, "shots": shots, "oa_percent": float(np.mean(ours)),
                    "random_oa_percent": float(np.mean(control)), **percent_gain(gains),
                    "gains_by_draw": json.dumps(gains),
                }
            )  # fmt: skip
    return rows


def percent_gain(gains: Sequence[float]) -> dict[str, Value]:
    """The mean of gains in points of OA, and the 95 % interval."""
    found = summarise(list(gains), PERCENT_DIFFERENCE)
    low, high = found.ci95 or (found.mean, found.mean)
    key = "gain_oa_percent"
    return {key: found.mean, LOWEST + key: low, HIGHEST + key: high}


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Gains over all scenes of a kind of place, over all their draws together."""
    grouped: dict[tuple[Value, ...], list[Row]] = {}
    keys = ("objective", "pretraining_scenes", "windows", "place", "readout", "shots")
    for row in rows:
        grouped.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {
            "part": "means", **dict(zip(keys, values, strict=True)), "scenes": len(found),
            "ahead_scenes": sum(float(str(row["gain_oa_percent"])) > 0 for row in found),
            "oa_percent": float(np.mean([row["oa_percent"] for row in found])),
            "random_oa_percent": float(np.mean([row["random_oa_percent"] for row in found])),
            **percent_gain([gain for row in found for gain in json.loads(str(row["gains_by_draw"]))]),
        }
        for values, found in grouped.items()
    ]  # fmt: skip


Accuracies = dict[str, list[list[float]]]


def _measured(name: str, pretraining: Pretraining | None, scenes: Scenes, effort: Effort, keep: Path) -> Accuracies:
    """OA in percent by read-out, then shots, then draw; of random weights without a pretraining. Kept in a file."""
    identity = [scenes.sources[one].identity for one in (name, *(pretraining.scenes if pretraining else ()))]
    tested = [effort.tested, effort.shots, effort.seeds, effort.global_batch, asdict(effort.fewshot)]
    model = None if pretraining is None else asdict(MODELS[pretraining.objective])
    steps = 0 if pretraining is None else pretraining.steps

    def job() -> Accuracies:
        scene = load_scene(scenes.sources[name])
        if pretraining is None:
            encoder = new_encoder(_ANY_SENSOR, [ModalitySchema.of(one) for one in scene.record.modalities], seed=0)
        else:
            encoder = _pretrained(pretraining, scenes, effort, keep)
        return measured_on(scene, encoder_for_scene(encoder, scene.record, name), effort)

    read: Accuracies = kept(keep, [identity, tested, model, steps], job)
    return read


def measured_on(scene: Scene, encoder: MultimodalEncoder, effort: Effort) -> Accuracies:
    """OA in percent by read-out, then shots, then draw."""
    task = Task(effort.shots, effort.seeds, "random", WITHOUT_WORDS)
    found: Accuracies = {}
    heads: dict[Readout, HeadKind] = {"kernel head": "kernel", "cosine head": "cosine"}
    for readout, head in heads.items():
        config = replace(effort.fewshot, head=head)
        outcome = run_task(scene, encoder, task, config, effort.tested)
        found[readout] = [[run.scores.oa for run in outcome.of_shots(shots)] for shots in effort.shots]
    found[READOUTS[2]] = nearest_neighbour(scene, encoder, effort)
    return found


def nearest_neighbour(scene: Scene, encoder: MultimodalEncoder, effort: Effort) -> list[list[float]]:
    """OA in percent of the nearest shot by the cosine of standardised features, by shots, then draw."""
    assert scene.labels is not None
    view = view_scene(scene, scene.record.modalities, encoder, effort.fewshot)
    read = ReadPixels.joined(list(read_pixels(encoder, view.windows, view.grid, view.present, effort.fewshot)))
    statistics = FeatureStatistics.of(read.features)
    standard_PMF = (read.features.values_PMF - statistics.mean_MF) / statistics.deviation_MF
    unit_PJ = normalize((standard_PMF * read.features.present_PM[..., None]).flatten(1), dim=-1)
    place = np.zeros(view.present.shape, np.int64)
    place[read.rows, read.cols] = np.arange(len(read.rows))
    reference = Reference.of_maps(np.where(view.present, scene.labels, 0), scene.record.classes)
    ids = np.asarray(reference.classes())
    found = []
    for shots in effort.shots:
        of_shots = []
        for seed in range(effort.seeds):
            episode = draw_episode(reference, shots, seed, "random", 1)
            support, query = (place[pixels.rows, pixels.cols] for pixels in (episode.support, episode.query))
            nearest_P = (unit_PJ[query] @ unit_PJ[support].T).argmax(dim=1).numpy()
            true, predicted = np.searchsorted(ids, (episode.query.class_ids, episode.support.class_ids[nearest_P]))
            of_shots.append(score(true, predicted, len(ids)).oa)
        found.append(of_shots)
    return found


def _pretrained(pretraining: Pretraining, scenes: Scenes, effort: Effort, keep: Path) -> MultimodalEncoder:
    """An encoder that is pretrained now, or was before."""
    sources = [scenes.sources[name] for name in pretraining.scenes]
    archive = keep / "archives" / digest([source.identity for source in sources])
    if not (archive / "manifest.json").exists():
        build_archive(sources, archive, ArchiveSettings())
    model = MODELS[pretraining.objective]
    run = keep / "encoders" / digest([archive.name, asdict(model), pretraining.steps, effort.global_batch])
    if not (run / "encoder" / "config.json").exists():
        config = PretrainConfig(
            archive=str(archive), run_dir=str(run), steps=pretraining.steps, model=model,
            global_batch=effort.global_batch, micro_batch=effort.global_batch, checkpoint_every=pretraining.steps,
            log_every=max(pretraining.steps // 10, 1), reconstruct_windows=0,
        )  # fmt: skip
        pretrain_single_process(config)
    return load_encoder(run / "encoder")
