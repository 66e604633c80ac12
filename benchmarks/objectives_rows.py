"""Measures the rows of objectives.py."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from kept_jobs import digest, kept
from language_rows import FIRST_MATERIAL_SEED, library_halves, tested_scenes
from language_rows import Effort as ScenesOfMaterials
from many_scenes_rows import FULL as MANY_SCENES
from many_scenes_rows import generated_scenes, nearest_neighbour, percent_gain
from material_scene import material_scene
from objectives_pretraining import pretrain
from plain_pretraining import MODEL
from real_scenes import REAL
from report import Row, Value, check_destination, print_table, write_json
from safetensors.torch import load_model, save_model
from shipped_pretraining import FIRST_ORBIT_SEED

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.encoder_source import read_shipped
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.names_prior import WITHOUT_WORDS
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.saved_encoder import new_encoder
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.simulate.coarse_scene import CoarseScene, CoarseSceneSpec

PLACES: Final = "twelve places"
VARIED: Final = "varied scenes"
RANDOM: Final = "random weights"
OTHER_RANDOM: Final = "other random weights"
SHIPPED: Final = "shipped"
KERNEL_HEAD: Final = "kernel head"
WEIGHTS: Final = "last.safetensors"
INSIDE: Final = ("place-0", "place-1")
OUTSIDE: Final = ("elsewhere-0", "elsewhere-1", "another-sensor", "from-orbit")
_ANY_SENSOR: Final = (ModalitySchema("hsi", 3, (450.0, 550.0, 650.0)),)


@dataclass(frozen=True)
class Setting:
    """How an encoder learned.

    Attributes:
        objective: of `objectives_pretraining.OBJECTIVES`, `RANDOM`, `OTHER_RANDOM` or `SHIPPED`.
        scenes: `PLACES`, or `VARIED`, which has these and others.
        steps: of pretraining.
    """

    objective: str
    scenes: str = PLACES
    steps: int = 300

    @property
    def label(self) -> str:
        """Its name in the table."""
        return self.objective if self.scenes == PLACES else f"{self.objective}, {self.scenes}"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        windows: a step.
        side: of a generated scene, in pixels.
        places: generated scenes that every encoder learns from.
        materials: scenes of materials among the varied ones.
        from_orbit: scenes as seen from orbit among the varied ones.
        tested_materials: scenes of materials to test on, of spectra that no encoder saw.
        tested: most windows that are tested, evenly spread over a scene's labelled pixels.
        shots: labelled pixels a class.
        seeds: draws of each.
    """

    windows: int = 128
    side: int = 64
    places: int = 12
    materials: int = 60
    from_orbit: int = 2
    tested_materials: int = 4
    tested: int = 250
    shots: tuple[int, ...] = (1, 2, 5)
    seeds: int = 5


SETTINGS: Final = (
    Setting("contrast of parts"),
    Setting("mask diffusion, noise-whitened components"),
    Setting("contrast of parts, groups of bands hidden"),
    Setting("contrast of parts and of modalities"),
    Setting("contrast of near pixels"),
    Setting("contrast of parts", VARIED),
    Setting("labels and contrast of parts", VARIED),
    Setting(SHIPPED),
    Setting(OTHER_RANDOM),
)
QUICK: Final = Effort(
    windows=64, side=40, places=1, materials=1, from_orbit=0, tested_materials=0, tested=20, shots=(1,), seeds=2
)
QUICK_SETTINGS: Final = 2
QUICK_STEPS: Final = 4


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    torch.set_num_threads(1)  # the same order of sums on any machine
    effort = QUICK if arguments.quick else Effort()
    settings: Sequence[Setting] = SETTINGS
    if arguments.quick:
        settings = [replace(one, steps=QUICK_STEPS) for one in settings[:QUICK_SETTINGS]]
    scenes = Scenes(effort, arguments.real)
    rows: list[Row] = []
    for setting in settings:
        for name, place in scenes.tested.items():
            rows += _rows(setting, name, place, scenes, arguments.keep)
        print(f"{setting.label}: done", flush=True)
    means = mean_rows(rows)
    print_table("gain in OA over random weights, the same draws [95 % interval over them], points", means)
    if arguments.json is not None:
        write_json(arguments.json, asdict(effort), [*means, *rows])
    return EXIT_DONE


class Scenes:
    """Scenes by name.

    Attributes:
        effort: how much is measured.
        tested: names of those that are tested on, with their place: inside, outside or real.
    """

    def __init__(self, effort: Effort, real: bool) -> None:
        self.effort = effort
        at_hand = tuple(REAL) if real else ()
        others = tested_scenes(
            ScenesOfMaterials(side=effort.side, tested_materials=effort.tested_materials, real=at_hand)
        )
        many = generated_scenes(replace(MANY_SCENES, side=effort.side)).sources
        self._load: dict[str, Callable[[], Scene]] = {
            **{name: partial(load_scene, source) for name, source in many.items()},
            **others,
            **{f"learned-{number}": partial(_of_materials, number, effort.side) for number in range(effort.materials)},
            **{f"orbit-{number}": partial(_from_orbit, number, effort.side) for number in range(effort.from_orbit)},
        }
        inside = [name for name in INSIDE if name in self.learned(PLACES)]
        self.tested = dict.fromkeys(inside, "inside") | dict.fromkeys(OUTSIDE, "outside")
        self.tested |= {name: "real" if name in REAL else "outside" for name in others}

    def learned(self, scenes: str) -> list[str]:
        """Names of the scenes that an encoder learns from."""
        names = [f"place-{number}" for number in range(self.effort.places)]
        if scenes == VARIED:
            names += [f"learned-{number}" for number in range(self.effort.materials)]
            names += [f"orbit-{number}" for number in range(self.effort.from_orbit)]
        return names

    def load(self, name: str) -> Scene:
        """The scene of that name."""
        return self._load[name]()


def _of_materials(number: int, side: int) -> Scene:
    seen, _ = library_halves()
    return load_scene(material_scene(f"learned-{number}", FIRST_MATERIAL_SEED + number, seen, side))


def _from_orbit(number: int, side: int) -> Scene:
    spec = CoarseSceneSpec(f"orbit-{number}", side, side, seed=FIRST_ORBIT_SEED + number, labelled=1.0)
    return load_scene(CoarseScene(spec))


def _rows(setting: Setting, name: str, place: str, scenes: Scenes, keep: Path) -> list[Row]:
    """A row a read-out and count of shots: what the setting brings over random weights, the same draws."""
    ours, control = (_measured(one, name, scenes, keep) for one in (setting, Setting(RANDOM)))
    rows: list[Row] = []
    for readout, of_random in control.items():
        for number, shots in enumerate(scenes.effort.shots):
            gains = [one - other for one, other in zip(ours[readout][number], of_random[number], strict=True)]
            rows.append(
                {
                    "part": "scenes", "try": setting.label, "place": place, "scene": name, "readout": readout,
                    "shots": shots, "oa_percent": float(np.mean(ours[readout][number])),
                    "random_oa_percent": float(np.mean(of_random[number])), **percent_gain(gains),
                    "gains_by_draw": json.dumps(gains),
                }
            )  # fmt: skip
    return rows


def mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Gains over all scenes of a place, over all their draws together."""
    keys = ("try", "place", "readout", "shots")
    grouped: dict[tuple[Value, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {
            "part": "means", **dict(zip(keys, values, strict=True)), "scenes": len(found),
            "ahead_scenes": sum(float(str(row["gain_oa_percent"])) > 0 for row in found),
            **percent_gain([gain for row in found for gain in json.loads(str(row["gains_by_draw"]))]),
        }
        for values, found in grouped.items()
    ]  # fmt: skip


def _measured(setting: Setting, name: str, scenes: Scenes, keep: Path) -> dict[str, list[list[float]]]:
    """OA in percent by read-out, then shots, then draw."""
    effort = scenes.effort

    def job() -> dict[str, list[list[float]]]:
        scene = scenes.load(name)
        encoder = encoder_for_scene(_encoder(setting, scenes, keep), scene.record, name)
        task = Task(effort.shots, effort.seeds, "random", WITHOUT_WORDS)
        outcome = run_task(scene, encoder, task, FewshotConfig(), effort.tested)
        found = {KERNEL_HEAD: [[run.scores.oa for run in outcome.of_shots(shots)] for shots in effort.shots]}
        if name not in REAL:
            like_many = replace(MANY_SCENES, shots=effort.shots, seeds=effort.seeds, tested=effort.tested)
            found["nearest"] = nearest_neighbour(scene, encoder, like_many)
        return found

    read: dict[str, list[list[float]]] = kept(keep, [asdict(setting), name, asdict(effort)], job)
    return read


def _encoder(setting: Setting, scenes: Scenes, keep: Path) -> MultimodalEncoder:
    """An encoder that is pretrained now, or was before."""
    if setting.objective == SHIPPED:
        shipped = read_shipped().encoder
        assert isinstance(shipped, MultimodalEncoder)
        return shipped
    if setting.objective in {RANDOM, OTHER_RANDOM}:
        return new_encoder(MODEL, _ANY_SENSOR, seed=0 if setting.objective == RANDOM else 1)
    effort, names = scenes.effort, scenes.learned(setting.scenes)
    folder = keep / "encoders" / digest([setting.objective, names, setting.steps, effort.windows, effort.side])
    if not (folder / WEIGHTS).exists():
        learned = pretrain([scenes.load(name) for name in names], setting.objective, setting.steps, effort.windows)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(learned, str(folder / WEIGHTS))
    encoder = MultimodalEncoder(MODEL, _ANY_SENSOR).eval()
    load_model(encoder, str(folder / WEIGHTS))
    return encoder
