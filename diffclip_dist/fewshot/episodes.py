"""Draws the labelled pixels that a classifier is fitted to, and those that it is tested on.

Every draw is a function of the seed and the class alone, so the 1-shot pixels are among the 2-shot ones, and neither
the order of the classes nor the other shots asked for change an episode.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from diffclip_dist.fewshot.labelled_pixels import LabelledPixels, Positions
from shards.errors import BadInput

Protocol = Literal["random", "official", "blocks"]
LabelMap = npt.NDArray[np.uint16]
Labelled = TypeVar("Labelled", LabelledPixels, LabelMap)

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

    @classmethod
    def joined(cls, parts: Sequence["Pixels"]) -> "Pixels":
        """The pixels of all parts, in their order."""
        return cls(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("rows", "cols", "class_ids")))

    def where(self, kept: npt.NDArray[np.bool_] | Positions) -> "Pixels":
        """Some of the pixels: bool (pixel), or their numbers."""
        return Pixels(self.rows[kept], self.cols[kept], self.class_ids[kept])


@dataclass(frozen=True)
class Episode:
    """One draw of shots.

    Many episodes test on nearly the same pixels of a large scene, so each keeps only which of them.

    Attributes:
        shots: labelled pixels asked for a class.
        seed: which draw.
        support: the pixels to fit to, class by class.
        reference: the labels that it was drawn from.
        protocol: how support and query relate.
        asked: which of ``reference.tested(protocol)`` to test on; none is in the support.
        notes: one line for each class with fewer pixels than asked for.
    """

    shots: int
    seed: int
    support: Pixels
    reference: "Reference"
    protocol: Protocol
    asked: npt.NDArray[np.bool_]
    notes: tuple[str, ...]

    @property
    def query(self) -> Pixels:
        """The pixels to test on, in the order of the scene; made anew at each call."""
        return self.reference.pixels(self.reference.tested(self.protocol).where(self.asked))


@dataclass(frozen=True)
class Reference:
    """The labelled pixels of a scene, and its official split where it has one.

    Attributes:
        labels: the labelled pixels.
        names: class id to name.
        shape: rows and columns of the scene.
        split: official training and test pixels.
    """

    labels: LabelledPixels
    names: Mapping[int, str]
    shape: tuple[int, int]
    split: tuple[LabelledPixels, LabelledPixels] | None = None

    @classmethod
    def of_maps(
        cls, labels: LabelMap, names: Mapping[int, str], split: tuple[LabelMap, LabelMap] | None = None
    ) -> "Reference":
        """The reference of label maps (row, col), 0 where unlabelled."""
        height, width = labels.shape
        of_map = LabelledPixels.of_map
        return cls(
            of_map(labels), names, (height, width), None if split is None else (of_map(split[0]), of_map(split[1]))
        )

    def classes(self) -> tuple[int, ...]:
        """Ids of the classes that have at least one labelled pixel, ascending."""
        held = np.unique(self.labels.class_ids)
        if self.split is not None:
            held = np.union1d(held, self.split[0].class_ids)
        return tuple(int(class_id) for class_id in held if int(class_id) in self.names)

    def tested(self, protocol: Protocol) -> LabelledPixels:
        """The pixels that some episode may test on."""
        return official_split(self.split)[1] if protocol == "official" else self.labels

    def pixels(self, labelled: LabelledPixels) -> Pixels:
        """The same with rows and columns."""
        rows, cols = np.divmod(labelled.places, self.shape[1])
        return Pixels(rows, cols, labelled.class_ids.astype(np.int64))


def draw_episode(reference: Reference, shots: int, seed: int, protocol: Protocol, footprint: int) -> Episode:
    """Draws the support of one seed and the query pixels that go with it.

    ``random`` tests on every labelled pixel that is not in the support. ``official`` draws from the scene's training
    map and tests on its test map. ``blocks`` cuts the scene into blocks, draws from one half of them and tests on
    pixels of the other half whose footprint shares no pixel with that of any support pixel. Without shots, all pixels
    that some episode may test on are tested, and every seed gives the same.

    Args:
        reference: labels of the scene.
        shots: labelled pixels a class, 0 or more.
        seed: which draw, at least 0.
        protocol: how support and query relate.
        footprint: side in pixels of the square, centred on a pixel, that the classifier may look at; odd.

    Raises:
        BadInput: an official split is asked for and there is none, or no pixel is left to test on.
    """
    tested = reference.tested(protocol)
    asked = np.ones(len(tested), dtype=np.bool_)
    if shots == 0:
        train = LabelledPixels.none()
    elif protocol == "official":
        train, _ = official_split(reference.split)
    elif protocol == "blocks":
        in_training = _in_training_blocks(reference, seed, footprint)
        train, asked = reference.labels.where(in_training), ~in_training
    else:
        train = reference.labels
    notes: list[str] = []
    chosen: list[Positions] = []
    for class_id in reference.classes():
        candidates = train.of_class(class_id)
        found, known = tested.find(candidates)
        shared = bool(np.any(asked[found[known]] & (tested.class_ids[found[known]] == class_id)))
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
    found, known = tested.find(support)
    asked[found[known]] = False
    if protocol == "blocks":
        asked &= ~_near(support, tested.places, reference.shape[1], footprint)
    if not asked.any():
        raise BadInput(f"protocol {protocol}: no labelled pixel is left to test on at {shots} shots, seed {seed}")
    if shots and len(support) == 0:
        raise BadInput(f"protocol {protocol}: no labelled pixel to learn from at {shots} shots, seed {seed}")
    untested = set(reference.classes()) - set(np.unique(tested.class_ids[asked]).tolist())
    notes += [f"{reference.names[class_id]}: no pixel is left to test it on" for class_id in sorted(untested)]
    return Episode(
        shots=shots,
        seed=seed,
        support=reference.pixels(LabelledPixels(support, train.class_ids[train.find(support)[0]])),
        reference=reference,
        protocol=protocol,
        asked=asked,
        notes=tuple(notes),
    )


def official_split(split: tuple[Labelled, Labelled] | None) -> tuple[Labelled, Labelled]:
    """The official training and test labels, as lists or as maps.

    Raises:
        BadInput: there is no official split.
    """
    if split is None:
        raise BadInput("protocol official: the scene has no official split (labels.split in its scene.yaml)")
    return split


def _in_training_blocks(reference: Reference, seed: int, footprint: int) -> npt.NDArray[np.bool_]:
    """Of each labelled pixel, whether it lies in a training block; else it lies in a test block.

    Rare classes choose first, a training block and then a test block each, so that every class that spans two blocks
    lies on both sides; the other blocks go to both sides in turn.
    """
    side = BLOCK_WINDOWS * footprint
    height, width = reference.shape
    blocks_down, blocks_across = -(-height // side), -(-width // side)
    rows, cols = np.divmod(reference.labels.places, width)
    block_of = rows // side * blocks_across + cols // side
    blocks_of_class = {c: np.unique(block_of[reference.labels.class_ids == c]) for c in reference.classes()}
    order = np.random.default_rng([seed, BLOCK_STREAM]).permutation(blocks_down * blocks_across)
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
    return np.isin(block_of, sorted(training))


def _near(support: Positions, places: Positions, width: int, footprint: int) -> npt.NDArray[np.bool_]:
    """At which places a footprint would share a pixel with the footprint of a support pixel."""
    reach = footprint - 1
    rows, cols = np.divmod(places, width)
    near = np.zeros(len(places), dtype=np.bool_)
    for row, col in zip(*np.divmod(support, width), strict=True):
        near |= (np.abs(rows - row) <= reach) & (np.abs(cols - col) <= reach)
    return near
