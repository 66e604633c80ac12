"""Folds of labelled pixels, for cross-validation: each label is tested by a classifier that did not learn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from diffclip_dist.fewshot.episodes import BLOCK_STREAM, BLOCK_WINDOWS, Pixels
from diffclip_dist.fewshot.labelled_pixels import Positions
from shards.errors import BadInput

FoldKind = Literal["leave-one-out", "stratified", "blocks", "official"]

# Labels: up to so many, each is a fold of its own
LEAVE_ONE_OUT_LABELS: Final = 64
# Folds up to so many labels, and beyond, where each fit takes long
FOLDS, MANY_LABELS, FOLDS_OF_MANY = 10, 1_000, 5


@dataclass(frozen=True)
class Fold:
    """The labels to fit to, and those held out to test on."""

    learned: Pixels
    tested: Pixels


@dataclass(frozen=True)
class Folds:
    """How labels are held out.

    Attributes:
        kind: ``leave-one-out``; ``stratified``: each class spread over the folds at random; ``blocks``: whole blocks of
            the scene; ``official``: one fold, the scene's own test map.
        folds: at least one.
    """

    kind: FoldKind
    folds: tuple[Fold, ...]

    def describe(self) -> str:
        """``by cross-validation over the labels, 10 folds``."""
        if self.kind == "official":
            return "on the official test map"
        held_out = {"leave-one-out": " (leave-one-out)", "stratified": "", "blocks": " of whole blocks"}[self.kind]
        return f"by cross-validation over the labels, {len(self.folds)} folds{held_out}"


def stratified_folds(learned: Pixels, tested: Pixels, seed: int) -> Folds:
    """Deals the labels of each class to folds, at random.

    Few labels are a fold each. A class's only label is never held out.

    Args:
        learned: the labels that a classifier is fitted to.
        tested: the labels to test on, which may be some of them.
        seed: of the deal.

    Raises:
        BadInput: no class has two labels to learn from.
    """
    class_ids, counts = np.unique(learned.class_ids, return_counts=True)
    testable = class_ids[counts > 1]
    if not len(testable):
        raise BadInput("labels: expected a class with at least two, for cross-validation holds one out; give more")
    labels = _joined(learned, tested)
    order = np.concatenate(
        [
            np.random.default_rng([seed, class_id]).permutation(np.flatnonzero(labels.class_ids == class_id))
            for class_id in testable.tolist()
        ]
    )
    alone = len(order) <= LEAVE_ONE_OUT_LABELS
    count = len(order) if alone else FOLDS if len(order) <= MANY_LABELS else FOLDS_OF_MANY
    fold_of = np.full(len(labels), -1)
    fold_of[order] = np.arange(len(order)) % count
    learned_fold, tested_fold = (_looked_up(labels, fold_of, some) for some in (learned, tested))
    folds = [Fold(_where(learned, learned_fold != f), _where(tested, tested_fold == f)) for f in range(count)]
    return Folds("leave-one-out" if alone else "stratified", _that_can_be_tested(folds))


def block_folds(learned: Pixels, tested: Pixels, seed: int, width: int, footprint: int) -> Folds:
    """Deals blocks of the scene to folds; no footprint of a tested label shares a pixel with that of a learned one.

    Rare classes are dealt first, so that each is spread over the folds as far as its blocks allow.

    Args:
        learned: the labels that a classifier is fitted to.
        tested: the labels to test on, which may be some of them.
        seed: of the deal.
        width: of the scene, columns.
        footprint: side in pixels of the square, centred on a pixel, that the classifier may look at; odd.

    Raises:
        BadInput: no class has labels in two blocks.
    """
    side = BLOCK_WINDOWS * footprint
    across = -(-width // side)
    labels = _joined(learned, tested)
    block_of = labels.rows // side * across + labels.cols // side
    rank = np.random.default_rng([seed, BLOCK_STREAM]).permutation(int(block_of.max()) + 1)
    class_ids, counts = np.unique(labels.class_ids, return_counts=True)
    count = min(FOLDS_OF_MANY, len(np.unique(block_of)))
    fold_of_block = np.full(len(rank), -1)
    for class_id in class_ids[np.argsort(counts, kind="stable")].tolist():
        blocks, sizes = np.unique(block_of[labels.class_ids == class_id], return_counts=True)
        in_fold = np.zeros(count, dtype=np.int64)
        dealt = fold_of_block[blocks] >= 0
        np.add.at(in_fold, fold_of_block[blocks[dealt]], sizes[dealt])
        for place in np.argsort(rank[blocks], kind="stable"):
            if fold_of_block[blocks[place]] < 0:
                fold_of_block[blocks[place]] = in_fold.argmin()
                in_fold[in_fold.argmin()] += sizes[place]
    folds = []
    for fold in range(count):
        held_out = _where(tested, fold_of_block[tested.rows // side * across + tested.cols // side] == fold)
        if len(held_out):
            folds.append(Fold(_far_from(learned, held_out, footprint), held_out))
    testable = _that_can_be_tested(folds)
    if not testable:
        raise BadInput(
            f"protocol blocks: no class has labels in two blocks of {side} x {side} pixels, so none can be held out; "
            "use --protocol random"
        )
    return Folds("blocks", testable)


def _joined(learned: Pixels, tested: Pixels) -> Pixels:
    """The labels of both, each once, in the order of the scene."""
    rows, cols, class_ids = (
        np.concatenate([getattr(learned, name), getattr(tested, name)]) for name in ("rows", "cols", "class_ids")
    )
    _, first = np.unique(np.stack([rows, cols]), axis=1, return_index=True)
    return Pixels(rows[first], cols[first], class_ids[first])


def _looked_up(labels: Pixels, values: Positions, some: Pixels) -> Positions:
    """The values of some of the labels, which are in the order of the scene."""
    width = int(labels.cols.max()) + 1
    found: Positions = values[np.searchsorted(labels.rows * width + labels.cols, some.rows * width + some.cols)]
    return found


def _where(pixels: Pixels, chosen: npt.NDArray[np.bool_]) -> Pixels:
    return Pixels(pixels.rows[chosen], pixels.cols[chosen], pixels.class_ids[chosen])


def _far_from(learned: Pixels, held_out: Pixels, footprint: int) -> Pixels:
    """The labels whose footprint shares no pixel with that of one held out."""
    tree = KDTree(np.stack([held_out.rows, held_out.cols], axis=1))
    distance, _ = tree.query(np.stack([learned.rows, learned.cols], axis=1), p=np.inf)
    return _where(learned, distance >= footprint)


def _that_can_be_tested(folds: Sequence[Fold]) -> tuple[Fold, ...]:
    """Folds without the labels of classes that they do not learn; none that tests nothing."""
    kept = [
        Fold(fold.learned, _where(fold.tested, np.isin(fold.tested.class_ids, fold.learned.class_ids)))
        for fold in folds
    ]
    return tuple(fold for fold in kept if len(fold.tested))
