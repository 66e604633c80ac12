"""Measures the rows of names_alone.py."""

import argparse
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from real_scenes import REAL, completed
from report import Value, check_destination, print_table, write_json

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.metrics import Scores, score
from diffclip_dist.randomness import permutation
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.name_classifier import NameClassifier
from diffclip_dist.words.words_config import WordsConfig
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.open_scene import open_scene

GENERATED: Final = ("synthetic", "synthetic-hard", "synthetic-vnir")
SHUFFLES: Final = 20


@dataclass(frozen=True)
class Effort:
    """What is measured."""

    real: tuple[str, ...] = tuple(REAL)
    generated: tuple[str, ...] = GENERATED
    shuffles: int = SHUFFLES
    words: WordsConfig = field(default_factory=WordsConfig)


QUICK: Final = Effort(real=("samson",), generated=("synthetic",), words=WordsConfig(networks=1, steps=150))


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else Effort()
    data = Path(os.environ.get("DIFFCLIP_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    scenes = [
        (folder, completed(load_scene(open_scene(str(data / folder))), REAL[folder]))
        for folder in effort.real
        if (data / folder).is_dir()
    ]
    scenes += [(f"{name} (generated)", load_scene(open_scene(name))) for name in effort.generated]
    rows = [_row(label, scene, effort) for label, scene in scenes]
    print_table("class names alone, no labelled pixel", rows)
    if arguments.json is not None:
        write_json(arguments.json, asdict(effort), rows)
    return EXIT_DONE


def _row(label: str, scene: Scene, effort: Effort) -> dict[str, Value]:
    record = scene.record
    classes = [ClassName(name, record.descriptions.get(one)) for one, name in record.classes.items()]
    started = time.perf_counter()
    classifier = NameClassifier.fit(scene, classes, effort.words)
    fit_s = time.perf_counter() - started
    own = name_scores(classifier, scene)
    shuffled = []
    for draw in range(effort.shuffles):
        order = permutation(len(classes), effort.words.seed, draw)
        shuffled.append(
            name_scores(classifier.with_classes([classes[place] for place in order]).for_scene(scene), scene)
        )
    return {
        "scene": label,
        "classes": len(classes),
        "known_names": sum(match.known for match in classifier.matches),
        "oa_percent": round(own.oa, 1),
        "aa_percent": round(own.aa, 1),
        "shuffled_oa_percent": round(float(np.mean([one.oa for one in shuffled])), 1),
        "shuffled_aa_percent": round(float(np.mean([one.aa for one in shuffled])), 1),
        "fit_s": round(fit_s, 1),
    }


def name_scores(classifier: NameClassifier, scene: Scene) -> Scores:
    """How well names alone tell the labelled pixels of a scene."""
    assert scene.labels is not None
    rows, cols = np.nonzero(scene.labels)
    values = {}
    for name in classifier.modalities:
        held = scene.values[name][rows, cols].astype(np.float32)
        held[~scene.valid[name][rows, cols]] = np.nan
        values[name] = torch.from_numpy(held)
    logs = classifier.log_probabilities(values, torch.from_numpy(rows), torch.from_numpy(cols))
    ids = np.array(list(scene.record.classes))
    true = np.searchsorted(ids, scene.labels[rows, cols])
    return score(true, logs.argmax(dim=1).numpy(), len(ids))
