"""Classical classifiers of a pixel's description, with fixed settings, on given draws of labelled pixels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pixel_descriptions import (
    Describe,
    Mask,
    Table,
    all_modalities,
    morphological_profiles,
    noise_fraction,
    present,
    spatial_stack,
    spectra,
)
from scipy import ndimage, sparse
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import KNeighborsClassifier, kneighbors_graph
from sklearn.svm import SVC

from diffclip_dist.fewshot.episodes import Pixels
from shards.archive.archive import Scene

ClassIds = npt.NDArray[np.int64]
# What a classifier sees of the tested pixels before it is tested
Sees = Literal["shots", "unlabelled pixels"]

TREES: Final = 200
NEIGHBOURS: Final = 10
SPREAD: Final = 0.9  # share that a pixel takes from its neighbours (Zhou et al. 2004)
SPREADING_ROUNDS: Final = 50
RIDGE: Final = 0.1
LEAST_SHARE: Final = 0.01  # of a class in a ridge's answer
LIKE_NEIGHBOURS: Final = 1.0  # log-odds that a like neighbour adds
SMOOTHING_ROUNDS: Final = 10


@dataclass(frozen=True)
class Draw:
    """One draw: labelled pixels of the scene that is learned from, and tested ones of the scene that is tested."""

    support: Pixels
    query: Pixels


@dataclass(frozen=True)
class Tables:
    """A description of the scene that is learned from and of the one that is tested, which may be the same.

    Attributes:
        learned: (row, col, feature).
        tested: (row, col, feature).
        known: bool (row, col), pixels of the tested scene that have data.
    """

    learned: Table
    tested: Table
    known: Mask


Classify = Callable[[Tables, Sequence[Draw]], list[ClassIds]]


@dataclass(frozen=True)
class PixelRow:
    """A row of the table.

    Attributes:
        name: of the row.
        describe: what is seen of a pixel.
        classify: class ids of each draw's query pixels.
        sees: whether unlabelled pixels, the tested ones among them, are learned from.
        least_shots: fewest a class that it can learn from.
        within_scene: whether it can test on its own scene alone.
    """

    name: str
    describe: Describe
    classify: Classify
    sees: Sees = "shots"
    least_shots: int = 1
    within_scene: bool = False

    def predicted(self, learned_from: Scene, tested: Scene, draws: Sequence[Draw]) -> list[ClassIds]:
        """Class ids of each draw's query pixels."""
        learned = self.describe(learned_from, learned_from)
        other = learned if tested is learned_from else self.describe(learned_from, tested)
        return self.classify(Tables(learned, other, present(tested)), draws)


def by_estimator(make: Callable[[], Any]) -> Classify:
    """A classifier of scikit-learn, fitted to each draw's support."""

    def classify(tables: Tables, draws: Sequence[Draw]) -> list[ClassIds]:
        return [
            make()
            .fit(_at(tables.learned, draw.support), draw.support.class_ids)
            .predict(_at(tables.tested, draw.query))
            for draw in draws
        ]

    return classify


def nearest_mean(tables: Tables, draws: Sequence[Draw]) -> list[ClassIds]:
    """The class whose mean is nearest."""
    found = []
    for draw in draws:
        ids, shots = draw.support.class_ids, _at(tables.learned, draw.support)
        classes = np.unique(ids)
        means = np.stack([shots[ids == class_id].mean(axis=0) for class_id in classes])
        found.append(KNeighborsClassifier(1).fit(means, classes).predict(_at(tables.tested, draw.query)))
    return found


def spread_labels(tables: Tables, draws: Sequence[Draw]) -> list[ClassIds]:
    """Labels spread over the graph of the nearest neighbours of all pixels (Zhou et al. 2004)."""
    number = np.cumsum(tables.known).reshape(tables.known.shape) - 1
    graph = kneighbors_graph(tables.tested[tables.known], NEIGHBOURS)
    graph = graph.maximum(graph.T)
    degree = sparse.diags_array(1.0 / np.sqrt(np.maximum(np.asarray(graph.sum(axis=1)).ravel(), 1.0)))
    step = (SPREAD * (degree @ graph @ degree)).tocsr().astype(np.float32)
    found = []
    for draw in draws:
        ids = np.unique(draw.support.class_ids)
        start = np.zeros((step.shape[0], len(ids)), np.float32)
        start[number[draw.support.rows, draw.support.cols], np.searchsorted(ids, draw.support.class_ids)] = 1.0
        held = start
        for _ in range(SPREADING_ROUNDS):
            held = step @ held + (1 - SPREAD) * start
        # each class spreads as much in all: without this the class in the densest part takes every far pixel
        held = held / np.maximum(held.sum(axis=0), 1e-12)
        found.append(ids[held[number[draw.query.rows, draw.query.cols]].argmax(axis=1)])
    return found


def ridge_with_field(tables: Tables, draws: Sequence[Draw]) -> list[ClassIds]:
    """Kernel ridge regression to the classes, smoothed by a Markov random field (mean field of a Potts model)."""
    found = []
    around = np.ones((3, 3, 1), np.float32)
    around[1, 1] = 0.0
    for draw in draws:
        ids = np.unique(draw.support.class_ids)
        model = KernelRidge(alpha=RIDGE, kernel="rbf")
        model.fit(_at(tables.learned, draw.support), draw.support.class_ids[:, None] == ids)
        share = np.full((*tables.known.shape, len(ids)), 0.0, np.float32)
        answered = np.maximum(model.predict(tables.tested[tables.known]), LEAST_SHARE)
        share[tables.known] = answered / answered.sum(axis=1, keepdims=True)
        own = np.log(np.maximum(share, LEAST_SHARE))
        for _ in range(SMOOTHING_ROUNDS):
            odds = own + LIKE_NEIGHBOURS * ndimage.convolve(share, around, mode="constant")
            share = np.exp(odds - odds.max(axis=2, keepdims=True))
            share *= tables.known[..., None] / share.sum(axis=2, keepdims=True)
        found.append(ids[_at(share, draw.query).argmax(axis=1)])
    return found


def _at(table: Table, pixels: Pixels) -> Table:
    return table[pixels.rows, pixels.cols]


def _svm() -> Any:
    return SVC(C=100.0)


def _forest() -> Any:
    return RandomForestClassifier(TREES, random_state=0)


# What is cheap and strong first
PIXEL_ROWS: Final = (
    PixelRow("SVM", all_modalities, by_estimator(_svm)),
    PixelRow("MNF, nearest mean", noise_fraction, nearest_mean, "unlabelled pixels"),
    PixelRow("morphological profiles, SVM", morphological_profiles, by_estimator(_svm), "unlabelled pixels"),
    PixelRow("spatial stack, SVM", spatial_stack, by_estimator(_svm)),
    PixelRow("1-NN", all_modalities, by_estimator(lambda: KNeighborsClassifier(1))),
    PixelRow(
        "LDA", all_modalities, by_estimator(lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")),
        least_shots=2,
    ),
    PixelRow("SVM, spectra alone", spectra, by_estimator(_svm)),
    PixelRow("spatial stack, random forest", spatial_stack, by_estimator(_forest)),
    PixelRow("random forest", all_modalities, by_estimator(_forest)),
    PixelRow("kernel ridge, MRF", all_modalities, ridge_with_field, "unlabelled pixels"),
    PixelRow("label spreading", noise_fraction, spread_labels, "unlabelled pixels", within_scene=True),
)  # fmt: skip
