"""Measures the rows of language.py.

Shapes: P pixels, C classes, M materials, E width of a sentence vector.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from kept_jobs import digest, kept
from language_pretraining import SPECTRA, TEMPERATURE, CaptionHead, pretrain
from many_scenes_rows import FIRST_SEED, generated_place, nearest_neighbour, percent_gain
from many_scenes_rows import FULL as MANY_SCENES
from material_scene import material_scene
from names_alone_rows import name_scores
from plain_pretraining import MODEL
from real_scenes import REAL, completed
from report import Row, check_destination, print_table, write_json
from safetensors.torch import load_model, save_model
from torch import Tensor
from torch.nn.functional import normalize

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.metrics import score
from diffclip_dist.fewshot.names_prior import WITHOUT_WORDS
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.study.experiment import Task, run_task
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.name_classifier import NameClassifier
from diffclip_dist.words.name_matching import match_names
from diffclip_dist.words.sentence_model import sentence_vectors
from diffclip_dist.words.spectral_library import LibrarySpectra, read_library
from diffclip_dist.words.text_vectors import WORDS
from diffclip_dist.words.words_config import WordsConfig
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.open_scene import open_scene
from shards.scene.source import SceneSource

CONTRAST: Final = "contrast of parts"
WITH_CAPTIONS: Final = "contrast of parts, captions"
WEIGHTS: Final = {CONTRAST: 0.0, WITH_CAPTIONS: 1.0}
FIRST_TESTED_SEED: Final = 5000
FIRST_MATERIAL_SEED: Final = 1000
FIGURES: Final = ((0, "oa_percent"), (1, "aa_percent"))


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        materials: scenes of materials to pretrain over.
        places: other generated scenes to pretrain over, without captions.
        steps: of pretraining.
        windows: a step.
        side: of a generated scene, in pixels.
        tested_materials: scenes of materials to test on.
        tested: most windows that are tested, evenly spread over a scene's labelled pixels.
        shots: labelled pixels a class.
        seeds: draws of each.
        real: folders of real scenes to test on.
    """

    materials: int = 36
    places: int = 12
    steps: int = 150
    windows: int = 128
    side: int = 64
    tested_materials: int = 3
    tested: int = 250
    shots: tuple[int, ...] = (1, 2, 5)
    seeds: int = 5
    real: tuple[str, ...] = tuple(REAL)


QUICK: Final = Effort(
    materials=2, places=1, steps=4, windows=64, side=40, tested_materials=1, tested=20, shots=(1,), seeds=2, real=()
)


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the tables and writes ``--json``."""
    check_destination(arguments.json)
    torch.set_num_threads(1)  # the same order of sums on any machine
    effort = QUICK if arguments.quick else Effort()
    models = {objective: _pretrained(objective, effort, arguments.keep) for objective in WEIGHTS}
    found: dict[str, dict[str, Any]] = {}
    for name, load in tested_scenes(effort).items():
        found[name] = {
            objective: kept(
                arguments.keep,
                ["few-shot", name, objective, *_pretraining(effort), *_testing(effort)],
                partial(few_shot, load, models[objective][0], effort),
            )
            for objective in WEIGHTS
        }
        found[name]["names"] = kept(
            arguments.keep,
            ["names", name, *_pretraining(effort)],
            partial(names_alone, load, *models[WITH_CAPTIONS]),
        )
        print(f"{name} done", flush=True)
    few_shots, names = _few_shot_rows(found, effort), _names_rows(found, effort)
    means = _mean_rows(few_shots)
    print_table(
        "OA that captions bring over the contrast alone, the same draws [95 % interval over them], points", means
    )
    print_table("names alone, percent", names)
    if arguments.json is not None:
        write_json(arguments.json, asdict(effort), [*means, *few_shots, *names])
    return EXIT_DONE


def tested_scenes(effort: Effort) -> Mapping[str, Callable[[], Scene]]:
    """How to load each: scenes of materials with spectra that pretraining did not see, then real ones."""
    _, unseen = library_halves()
    data = Path(os.environ.get("DIFFCLIP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    made: dict[str, SceneSource] = {
        name: material_scene(name, FIRST_TESTED_SEED + number, unseen, effort.side)
        for number, name in enumerate(f"materials-{number}" for number in range(effort.tested_materials))
    }
    return {name: partial(load_scene, source) for name, source in made.items()} | {
        name: partial(_real, data / name) for name in effort.real if (data / name).is_dir()
    }


def _real(folder: Path) -> Scene:
    return completed(load_scene(open_scene(str(folder))), REAL[folder.name])


def library_halves() -> tuple[LibrarySpectra, LibrarySpectra]:
    """The spectra that pretraining sees, and the others."""
    library = read_library()
    seen = np.random.default_rng(5).random(len(library.names)) < 0.5
    return library.subset(seen), library.subset(~seen)


def few_shot(load: Callable[[], Scene], encoder: MultimodalEncoder, effort: Effort) -> dict[str, list[list[float]]]:
    """OA in percent by read-out, then shots, then draw."""
    scene = load()
    own = encoder_for_scene(encoder, scene.record, scene.record.name)
    found = {}
    for readout, text in (("kernel head", WITHOUT_WORDS), ("kernel head, class names", WORDS)):
        task = Task(effort.shots, effort.seeds, "random", text)
        outcome = run_task(scene, own, task, FewshotConfig(), effort.tested)
        found[readout] = [[run.scores.oa for run in outcome.of_shots(shots)] for shots in effort.shots]
    like_many = replace(MANY_SCENES, shots=effort.shots, seeds=effort.seeds, tested=effort.tested)
    found["nearest neighbour in features"] = nearest_neighbour(scene, own, like_many)
    return found


def names_alone(
    load: Callable[[], Scene], encoder: MultimodalEncoder, head: CaptionHead
) -> dict[str, tuple[float, float]]:
    """OA and AA in percent of labelled pixels that are told by names alone: by the words, and in two ways by the head.

    The words know the whole library, also the half that the scenes of materials are made from; pretraining does not.
    """
    scene = load()
    assert scene.labels is not None
    record = scene.record
    classes = [ClassName(name, record.descriptions.get(one)) for one, name in record.classes.items()]
    words = name_scores(NameClassifier.fit(scene, classes), scene)
    rows, cols = np.nonzero(scene.labels)
    kept = np.linspace(0, len(rows) - 1, min(len(rows), 2000)).astype(np.int64)
    rows, cols = rows[kept], cols[kept]
    ids = np.array(list(record.classes))
    true = np.searchsorted(ids, scene.labels[rows, cols])
    told_PE = _told(scene, encoder, head, rows, cols)
    texts_CE = torch.stack([_mean_vector(one.texts()) for one in classes])
    direct_PC = told_PE @ texts_CE.T
    captions_ME = torch.stack([_mean_vector(material.captions) for material in MATERIALS])
    _, materials_CM = match_names(classes, WordsConfig())
    through_PC = (told_PE @ captions_ME.T / TEMPERATURE).softmax(dim=1) @ materials_CM.T
    # half of the correction towards equal class shares, as the words have
    through_PC = through_PC.log() - 0.5 * through_PC.mean(dim=0).log()
    found = {"words": words}
    for way, scores_PC in (("encoder, names", direct_PC), ("encoder, materials", through_PC)):
        found[way] = score(true, scores_PC.argmax(dim=1).numpy(), len(ids))
    return {way: (one.oa, one.aa) for way, one in found.items()}


def _told(scene: Scene, encoder: MultimodalEncoder, head: CaptionHead, rows: Any, cols: Any) -> Tensor:
    """What the head makes of each pixel's spectral token, unit vectors (P, E)."""
    record = scene.record
    own = encoder_for_scene(encoder, record, record.name)
    windows = SceneWindows(scene, record, MODEL.window)
    place = [one.wavelengths_nm is not None for one in record.modalities].index(True)
    centre_T = torch.tensor([MODEL.tokens // 2])
    told = []
    with torch.no_grad():
        for start in range(0, len(rows), 256):
            values, valid = windows.gather(rows[start : start + 256], cols[start : start + 256])
            told.append(head(own(values, valid, centre_T).tokens_BMTD[:, place, 0]))
    return torch.cat(told)


def _mean_vector(texts: tuple[str, ...]) -> Tensor:
    return normalize(torch.from_numpy(sentence_vectors(texts)).mean(dim=0), dim=0)


def _pretrained(objective: str, effort: Effort, keep: Path) -> tuple[MultimodalEncoder, CaptionHead]:
    """An encoder that is pretrained now, or was before."""
    folder = keep / "encoders" / digest([objective, *_pretraining(effort)])
    encoder = MultimodalEncoder(MODEL, [ModalitySchema(SPECTRA, 3, (450.0, 550.0, 650.0))]).eval()
    head = CaptionHead().eval()
    if not (folder / "head.safetensors").exists():
        seen, _ = library_halves()
        scenes = [
            (load_scene(material_scene(f"learned-{number}", FIRST_MATERIAL_SEED + number, seen, effort.side)), True)
            for number in range(effort.materials)
        ]
        scenes += [
            (load_scene(generated_place(f"place-{number}", FIRST_SEED + number, effort.side)), False)
            for number in range(effort.places)
        ]
        learned = pretrain(scenes, effort.steps, effort.windows, WEIGHTS[objective])
        folder.mkdir(parents=True, exist_ok=True)
        for one, name in zip(learned, ("encoder", "head"), strict=True):
            save_model(one, str(folder / f"{name}.safetensors"))
    load_model(encoder, str(folder / "encoder.safetensors"))
    load_model(head, str(folder / "head.safetensors"))
    return encoder, head


def _few_shot_rows(found: dict[str, dict[str, Any]], effort: Effort) -> list[Row]:
    """A row a scene, read-out and count of shots: what captions bring over the contrast alone, the same draws."""
    rows: list[Row] = []
    for name, of_objective in found.items():
        for readout, alone in of_objective[CONTRAST].items():
            for place, shots in enumerate(effort.shots):
                captioned = of_objective[WITH_CAPTIONS][readout][place]
                gains = [one - other for one, other in zip(captioned, alone[place], strict=True)]
                rows.append(
                    {
                        "part": "few-shot", "scene": name, "kind": "real" if name in effort.real else "generated",
                        "readout": readout, "shots": shots, "contrast_oa_percent": float(np.mean(alone[place])),
                        "captions_oa_percent": float(np.mean(captioned)), **percent_gain(gains),
                        "gains_by_draw": json.dumps(gains),
                    }
                )  # fmt: skip
    return rows


def _mean_rows(rows: Sequence[Row]) -> list[Row]:
    """Gains over all scenes of a kind, over all their draws together; then OA and AA of names alone."""
    means: list[Row] = []
    for kind, readout, shots in dict.fromkeys((row["kind"], row["readout"], row["shots"]) for row in rows):
        of_kind = [row for row in rows if (row["kind"], row["readout"], row["shots"]) == (kind, readout, shots)]
        gains = [gain for row in of_kind for gain in json.loads(str(row["gains_by_draw"]))]
        means.append(
            {
                "part": "means", "kind": kind, "readout": readout, "shots": shots, "scenes": len(of_kind),
                "ahead_scenes": sum(float(str(row["gain_oa_percent"])) > 0 for row in of_kind), **percent_gain(gains),
            }
        )  # fmt: skip
    return means


def _names_rows(found: dict[str, dict[str, Any]], effort: Effort) -> list[Row]:
    return [
        {"part": "names alone", "scene": name, "kind": "real" if name in effort.real else "generated"}
        | {
            f"{way.replace(', ', '_')}_{figure}": scores[place]
            for way, scores in of_scene["names"].items()
            for place, figure in FIGURES
        }
        for name, of_scene in found.items()
    ]


def _pretraining(effort: Effort) -> list[int]:
    return [effort.materials, effort.places, effort.steps, effort.windows, effort.side]


def _testing(effort: Effort) -> list[object]:
    return [effort.tested, effort.shots, effort.seeds]
