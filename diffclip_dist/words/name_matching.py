"""Which materials a class name stands for.

Shapes: C classes, M materials.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.materials import MATERIALS
from diffclip_dist.words.sentence_model import sentence_vectors
from diffclip_dist.words.words_config import WordsConfig

# captions told of a class
NEAREST = 3


@dataclass(frozen=True)
class NearCaption:
    """A caption near to a class name: the material's name, the caption, and their cosine, -1 to 1."""

    material: str
    caption: str
    similarity: float


@dataclass(frozen=True)
class NameMatch:
    """What a class name was taken for.

    Attributes:
        name: of the class.
        nearest: the materials that are nearest, the first the nearest.
        known: False where even the nearest is far; the name then says nothing.
    """

    name: str
    nearest: tuple[NearCaption, ...]
    known: bool


def match_names(classes: Sequence[ClassName], config: WordsConfig) -> tuple[tuple[NameMatch, ...], Tensor]:
    """Each class's match, and the weights (C, M) of the materials in it, with the sum 1 over the materials.

    Raises:
        WordsUnavailable: the sentence model is missing.
    """
    captions = [(place, caption) for place, material in enumerate(MATERIALS) for caption in material.captions]
    vectors = sentence_vectors([caption for _, caption in captions])
    matches: list[NameMatch] = []
    weights: list[Tensor] = []
    for one in classes:
        # a class is as near to a caption as the nearer of its name and its description
        cosines = (vectors @ sentence_vectors(one.texts()).T).max(axis=1)
        best: dict[int, tuple[float, str]] = {}
        for (place, caption), cosine in zip(captions, cosines.tolist(), strict=True):
            best[place] = max(best.get(place, (-1.0, "")), (cosine, caption))
        similarity = np.array([best[place][0] for place in range(len(MATERIALS))])
        order = np.argsort(-similarity, kind="stable")[:NEAREST].tolist()
        nearest = tuple(NearCaption(MATERIALS[p].name, best[p][1], round(best[p][0], 4)) for p in order)
        matches.append(NameMatch(one.name, nearest, nearest[0].similarity >= config.least_similarity))
        weights.append(torch.softmax(torch.tensor(similarity) / config.temperature, dim=0).float())
    return tuple(matches), torch.stack(weights)
