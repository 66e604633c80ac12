"""Labelled pixels that a classifier learns from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from diffclip_dist.feature_extraction.views import Positions
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.episodes import Pixels


@dataclass(frozen=True)
class Support:
    """The pixels to learn from and the index of the class of each."""

    rows: Positions
    cols: Positions
    targets: Positions

    @classmethod
    def of(cls, pixels: Pixels, class_ids: Sequence[int]) -> "Support":
        """Labelled pixels by the index of their class in `class_ids`, ascending."""
        return cls(pixels.rows, pixels.cols, np.searchsorted(class_ids, pixels.class_ids))


def reported(
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    seeds: Sequence[int],
    report: Callable[[str, int, int], None],
) -> Iterator[tuple[Support, ClassTextEncoder, int]]:
    """Supports with their texts and seeds one by one; reports how many classifiers are fitted."""
    for number, each in enumerate(zip(supports, texts, seeds, strict=True)):
        report("fitting", number, len(supports))
        yield each
    report("fitting", len(supports), len(supports))
