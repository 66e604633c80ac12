"""Measures the rows of another_scene.py."""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from report import HIGHEST, LOWEST, Row, check_destination, print_table, write_json

from diffclip_dist.api.few_shot_classifier import FewShotClassifier
from diffclip_dist.api.scenes import Raster
from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.metrics import Summary, summarise
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Labels
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

BANDS: Final = 16
# Part of all pairs that are candidates, at both ends
TAIL: Final = 0.1
# Three classes whose spectra overlap and whose frequencies are turned round, in patches of so many pixels a side
TURNED_SPECTRA: Final = ((4, 5, 6, 7, 6, 5), (5, 5, 6, 6, 7, 5), (4, 6, 5, 7, 7, 6))
TURNED_SHARES: Final = ((0.7, 0.2, 0.1), (0.1, 0.2, 0.7))
PATCH: Final = 4


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        seeds: of the generated scenes that are cut into places.
        scene_side: of each, in pixels.
        place_side: of a place, in pixels.
        pairs: of places, of each kind.
        shots: labelled pixels a class.
    """

    seeds: tuple[int, ...]
    scene_side: int
    place_side: int
    pairs: int
    shots: tuple[int, ...]


QUICK: Final = Effort(seeds=(6,), scene_side=128, place_side=32, pairs=3, shots=(2,))
FULL: Final = Effort(seeds=(6, 7, 8), scene_side=256, place_side=64, pairs=24, shots=(1, 2, 5, 10))


@dataclass(frozen=True)
class Place:
    """A generated place whose every pixel is labelled.

    Attributes:
        scene: the place.
        truth: class ids (row, col).
        shares: part of the pixels of each class id.
    """

    scene: Scene
    truth: Labels
    shares: npt.NDArray[np.float64]


def measure(arguments: argparse.Namespace) -> int:
    """Measures, prints the table and writes ``--json``."""
    check_destination(arguments.json)
    effort = QUICK if arguments.quick else FULL
    places = [place for seed in effort.seeds for place in cut(seed, effort)]
    kinds = {kind: choose_pairs(places, kind, effort.pairs) for kind in ("different", "similar")}
    kinds["turned round"] = [turned_pair(seed, effort.place_side) for seed in range(effort.pairs)]
    rows = [measure_pairs(pairs, kind, shots) for kind, pairs in kinds.items() for shots in effort.shots]
    print_table("class priors and means of the mapped place against those of the shots' (generated scenes)", rows)
    if arguments.json is not None:
        write_json(arguments.json, asdict(effort), rows)
    return EXIT_DONE


def cut(seed: int, effort: Effort) -> Iterator[Place]:
    """The places of a generated scene."""
    spec = GeneratedSceneSpec(height=effort.scene_side, width=effort.scene_side, bands=BANDS, seed=seed, labelled=1.0)
    scene = load_scene(GeneratedScene(spec))
    assert scene.labels is not None
    starts = range(0, effort.scene_side, effort.place_side)
    for top, left in itertools.product(starts, starts):
        part = scene.read(None, slice(top, top + effort.place_side), slice(left, left + effort.place_side))
        assert part.labels is not None
        arrays = {
            name: np.where(part.valid[name][..., None], values.astype(np.float32), np.float32(np.nan))
            for name, values in part.values.items()
        }
        shares = np.bincount(part.labels.ravel(), minlength=max(scene.record.classes) + 1) / part.labels.size
        yield Place(load_scene(ArrayScene(f"place-{seed}-{top}-{left}", arrays)), part.labels, shares)


def turned_pair(seed: int, side: int) -> tuple[Place, Place]:
    """Two places of patches of three classes, of which one covers most of the first and another most of the second."""
    one, two = (_patchwork(shares, [seed, number], side) for number, shares in enumerate(TURNED_SHARES))
    return one, two


def measure_pairs(pairs: list[tuple[Place, Place]], kind: str, shots: int) -> Row:
    """Accuracy over pairs of one kind, by both ways, and the gain of the first over the second."""
    by_own: list[tuple[float, float]] = []
    by_kept: list[tuple[float, float]] = []
    for number, (place, other) in enumerate(pairs):
        classifier = fit(place, shots, number)
        # all come from one generator, in one unit; places are small, and their statistics rough
        for found, keep in ((by_own, False), (by_kept, True)):
            class_map = classifier.predict(other.scene, keep_priors=keep, trust_units=True)
            found.append(accuracies(class_map, other.truth))
    (oa, aa), (oa_kept, aa_kept) = np.array(by_own).T, np.array(by_kept).T
    gain_oa, gain_aa = (summarise(gain.tolist(), (-100.0, 100.0)) for gain in (oa - oa_kept, aa - aa_kept))
    return {
        "pairs": kind,
        "places": len(pairs),
        "share_that_differs_percent": 100 * float(np.mean([_difference(*pair) for pair in pairs])),
        "shots": shots,
        "oa_percent": float(oa.mean()),
        "oa_kept_percent": float(oa_kept.mean()),
        **gain_columns("oa", gain_oa),
        **gain_columns("aa", gain_aa),
    }


def choose_pairs(places: list[Place], kind: str, pairs: int) -> list[tuple[Place, Place]]:
    """Ordered pairs among the `TAIL` that differ most, or least, in the frequencies of classes."""
    everything = list(itertools.permutations(range(len(places)), 2))
    difference = np.array([_difference(places[one], places[two]) for one, two in everything])
    order = np.argsort(-difference if kind == "different" else difference, kind="stable")
    candidates = order[: max(round(TAIL * len(order)), pairs)]
    drawn = np.random.default_rng(0).choice(candidates, pairs, replace=False)
    return [(places[one], places[two]) for one, two in (everything[number] for number in drawn)]


def gain_columns(name: str, gain: Summary) -> Row:
    """Mean gain over the pairs in points, and the 95 % interval of the mean as its spread."""
    assert gain.ci95 is not None
    key = f"{name}_gain_percent"
    return {key: gain.mean, LOWEST + key: gain.ci95[0], HIGHEST + key: gain.ci95[1]}


def fit(place: Place, shots: int, seed: int) -> FewShotClassifier:
    """A classifier of a place from some of its pixels of each class, by bands alone."""
    random = np.random.default_rng(seed)
    labels = np.zeros_like(place.truth)
    for class_id in np.unique(place.truth[place.truth > 0]):
        pixels = np.flatnonzero(place.truth == class_id)
        labels.ravel()[random.choice(pixels, min(shots, len(pixels)), replace=False)] = class_id
    return FewShotClassifier(random_state=seed).fit(place.scene, labels)


def accuracies(class_map: Raster, truth: Labels) -> tuple[float, float]:
    """OA and AA in percent over the labelled pixels; classes without shots count."""
    right = np.asarray(class_map) == truth
    of_class = [100 * float(right[truth == class_id].mean()) for class_id in np.unique(truth[truth > 0])]
    return 100 * float(right[truth > 0].mean()), float(np.mean(of_class))


def _patchwork(shares: tuple[float, ...], seed: list[int], side: int) -> Place:
    random = np.random.default_rng(seed)
    cover = np.kron(random.choice(3, size=(side // PATCH,) * 2, p=shares), np.ones((PATCH, PATCH), np.int64))
    hsi = np.array(TURNED_SPECTRA, np.float32)[cover] + random.normal(0, 1, (side, side, 6)).astype(np.float32)
    truth = (cover + 1).astype(np.uint16)
    found = np.bincount(truth.ravel(), minlength=4) / truth.size
    return Place(load_scene(ArrayScene(f"patches-{seed}", {"hsi": hsi})), truth, found)


def _difference(one: Place, two: Place) -> float:
    """Part of the pixels that would have to change their class for the frequencies to be the same."""
    return float(np.abs(one.shares - two.shares).sum()) / 2
