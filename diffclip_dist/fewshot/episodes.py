"""Draws the labelled pixels that a classifier is fitted to, and those that it is tested on.

Every draw is a function of the seed and the class alone, so the 1-shot pixels are among the 2-shot ones, and neither
the order of the classes nor the other shots asked for change an episode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from shards.errors import BadInput

Protocol = Literal["random", "official", "blocks"]
Positions = npt.NDArray[np.int64]
LabelMap = npt.NDArray[np.uint16]

# Sides of a block in windows: wide enough that a block holds whole windows, small enough that a scene has many.
BLOCK_WINDOWS = 2
# Seeds the draw of blocks apart from that of any class; class ids are below 2**16.
BLOCK_STREAM = 2**16


@dataclass(frozen=True)
class Pixels:
    """Labelled pixels: positions in the scene and class ids, all of one length."""

    rows: Positions
    cols: Positions
    class_ids: Positions

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Episode:
    """One draw of shots.

    Attributes:
        shots: labelled pixels asked for a class.
        seed: which draw.
        support: the pixels to fit to, class by class.
        query: the pixels to test on, in the order of the scene; none is in the support.
        notes: one line for each class with fewer pixels than asked for.
    """

    shots: int
    seed: int
    support: Pixels
    query: Pixels
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Reference:
    """The labels of a scene (row, col), 0 where unlabelled, and its official split where it has one."""

    labels: LabelMap
    names: Mapping[int, str]
    split: tuple[LabelMap, LabelMap] | None = None

    def classes(self) -> tuple[int, ...]:
        """Ids of the classes that have at least one labelled pixel, ascending."""
        held = np.union1d(self.labels, self.split[0]) if self.split is not None else np.unique(self.labels)
        return tuple(int(class_id) for class_id in held if int(class_id) in self.names)


def draw_episode(reference: Reference, shots: int, seed: int, protocol: Protocol, footprint: int) -> Episode:
    """Draws the support of one seed and the query pixels that go with it.

    ``random`` tests on every labelled pixel that is not in the support. ``official`` draws from the scene's training
    map and tests on its test map. ``blocks`` cuts the scene into blocks, draws from one half of them and tests on
    pixels of the other half whose footprint shares no pixel with that of any support pixel.

    Args:
        reference: labels of the scene.
        shots: labelled pixels a class, at least 1.
        seed: which draw, at least 0.
        protocol: how support and query relate.
        footprint: side in pixels of the square, centred on a pixel, that the classifier may look at; odd.

    Raises:
        BadInput: an official split is asked for and there is none, or no pixel is left to test on.
    """
    if protocol == "official":
        train, test = official_split(reference)
    elif protocol == "blocks":
        train, test = _block_halves(reference, seed, footprint)
    else:
        train, test = reference.labels, reference.labels
    notes: list[str] = []
    chosen: list[Positions] = []
    for class_id in reference.classes():
        candidates = np.flatnonzero(train == class_id)
        shared = bool(np.any(test.ravel()[candidates] == class_id))
        available = len(candidates) - 1 if shared else len(candidates)
        order = np.random.default_rng([seed, class_id]).permutation(len(candidates))
        chosen.append(candidates[order[: min(shots, available)]])
        if available < shots:
            rest = " and 1 stays for the test" if shared else ""
            notes.append(
                f"{reference.names[class_id]}: {max(available, 0)} of {shots} shots, for the {protocol} protocol "
                f"offers it {len(candidates)} labelled pixels{rest}"
            )
    support = np.concatenate(chosen)
    tested = test.copy()
    tested.ravel()[support] = 0
    if protocol == "blocks":
        tested[_near(support, tested.shape, footprint)] = 0
    query = np.flatnonzero(tested)
    if len(query) == 0:
        raise BadInput(f"protocol {protocol}: no labelled pixel is left to test on at {shots} shots, seed {seed}")
    if len(support) == 0:
        raise BadInput(f"protocol {protocol}: no labelled pixel to learn from at {shots} shots, seed {seed}")
    untested = set(reference.classes()) - set(np.unique(tested).tolist())
    notes += [f"{reference.names[class_id]}: no pixel is left to test it on" for class_id in sorted(untested)]
    return Episode(
        shots=shots,
        seed=seed,
        support=_pixels(support, train),
        query=_pixels(query, tested),
        notes=tuple(notes),
    )


def official_split(reference: Reference) -> tuple[LabelMap, LabelMap]:
    if reference.split is None:
        raise BadInput("protocol official: the scene has no official split (labels.split in its scene.yaml)")
    return reference.split


def _block_halves(reference: Reference, seed: int, footprint: int) -> tuple[LabelMap, LabelMap]:
    """The label map restricted to the training blocks and to the test blocks.

    Rare classes choose first, a training block and then a test block each, so that every class that spans two blocks
    lies on both sides; the other blocks go to both sides in turn.
    """
    side = BLOCK_WINDOWS * footprint
    height, width = reference.labels.shape
    blocks_across = -(-width // side)
    block_of = (np.arange(height) // side)[:, None] * blocks_across + (np.arange(width) // side)[None, :]
    blocks_of_class = {c: np.unique(block_of[reference.labels == c]) for c in reference.classes()}
    order = np.random.default_rng([seed, BLOCK_STREAM]).permutation(int(block_of.max()) + 1)
    rank = np.argsort(order)
    training: set[int] = set()
    testing: set[int] = set()
    for class_id in sorted(blocks_of_class, key=lambda c: (len(blocks_of_class[c]), c)):
        blocks = sorted(blocks_of_class[class_id].tolist(), key=lambda block: int(rank[block]))
        for side_has, other in ((training, testing), (testing, training)):
            free = [block for block in blocks if block not in other]
            if free and not side_has.intersection(blocks):
                side_has.add(free[0])
    for place, block in enumerate(order.tolist()):
        if block not in training and block not in testing:
            (training if place % 2 == 0 else testing).add(block)
    is_training = np.isin(block_of, sorted(training))
    return np.where(is_training, reference.labels, 0), np.where(is_training, 0, reference.labels)


def _near(support: Positions, shape: tuple[int, ...], footprint: int) -> npt.NDArray[np.bool_]:
    """Where a footprint would share a pixel with the footprint of a support pixel (row, col)."""
    near = np.zeros(shape, dtype=np.bool_)
    reach = footprint - 1
    for row, col in zip(*np.unravel_index(support, shape), strict=True):
        near[max(row - reach, 0) : row + reach + 1, max(col - reach, 0) : col + reach + 1] = True
    return near


def _pixels(flat: Positions, labels: LabelMap) -> Pixels:
    rows, cols = np.unravel_index(flat, labels.shape)
    return Pixels(rows.astype(np.int64), cols.astype(np.int64), labels.ravel()[flat].astype(np.int64))
