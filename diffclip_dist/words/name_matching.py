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
from diffclip_dist.words.sentence_model import Vectors
from diffclip_dist.words.text_vectors import WORDS, text_vectors
from diffclip_dist.words.words_config import WordsConfig
from diffclip_dist.words.words_unavailable import WordsUnavailable

# captions told of a class
NEAREST = 3
# of the materials, the share that must have a caption in a text bank
LEAST_CAPTIONED = 0.5
# mean and standard deviation of the sentence model's cosines between captions, in which the settings are meant
CAPTIONS_MEAN, CAPTIONS_DEVIATION = 0.2696, 0.1271
# texts with a cosine from here on are one
SAME_TEXT = 0.9999


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


def match_names(
    classes: Sequence[ClassName], config: WordsConfig, text: str = WORDS
) -> tuple[tuple[NameMatch, ...], Tensor]:
    """Each class's match, and the weights (C, M) of the materials in it, with the sum 1 over the materials.

    Args:
        classes: their names.
        config: the temperature of the weights, and the least cosine of a known name, both by the sentence model. For
            other vectors they are moved and scaled as the cosines between captions are.
        text: whose vectors are compared, as `text_vectors` takes it. Materials without a caption in a bank have no
            weight.

    Raises:
        WordsUnavailable: the sentence model is missing, or a bank has captions of too few materials.
        BadInput: the vectors cannot be read, or a bank has none of a class.
    """
    source = text_vectors(text)
    captions = [
        (place, caption)
        for place, material in enumerate(MATERIALS)
        for caption in material.captions
        if source.knows(caption)
    ]
    if len({place for place, _ in captions}) < LEAST_CAPTIONED * len(MATERIALS):
        raise WordsUnavailable(
            f"class names: {text.removeprefix('bank:')} has captions of too few materials; diffclip textbank writes "
            "a bank with all of them"
        )
    vectors = source.vectors([caption for _, caption in captions])
    temperature, least_similarity = config.temperature, config.least_similarity
    if text != WORDS:
        mean, deviation = caption_cosines(vectors)
        scale = deviation / CAPTIONS_DEVIATION
        temperature *= scale
        # a name that is a caption is known, however alike all texts are to a model
        least_similarity = min(mean + scale * (least_similarity - CAPTIONS_MEAN), SAME_TEXT)
    matches: list[NameMatch] = []
    weights: list[Tensor] = []
    for one in classes:
        # a class is as near to a caption as the nearer of its name and its description
        cosines = (vectors @ source.of_class(one).T).max(axis=1)
        best: dict[int, tuple[float, str]] = {}
        for (place, caption), cosine in zip(captions, cosines.tolist(), strict=True):
            best[place] = max(best.get(place, (-1.0, "")), (cosine, caption))
        similarity = np.array([best[place][0] if place in best else -np.inf for place in range(len(MATERIALS))])
        order = np.argsort(-similarity, kind="stable")[:NEAREST].tolist()
        nearest = tuple(NearCaption(MATERIALS[p].name, best[p][1], round(best[p][0], 4)) for p in order)
        matches.append(NameMatch(one.name, nearest, nearest[0].similarity >= least_similarity))
        weights.append(torch.softmax(torch.tensor(similarity) / temperature, dim=0).float())
    return tuple(matches), torch.stack(weights)


def caption_cosines(vectors_TE: Vectors) -> tuple[float, float]:
    """Mean and standard deviation of the cosines between different captions.

    Args:
        vectors_TE: of the captions, with length 1; a caption of several materials comes several times.
    """
    cosines_TT = vectors_TE @ vectors_TE.T
    different = np.triu(cosines_TT < SAME_TEXT)
    held = cosines_TT[different]
    return float(held.mean()), max(float(held.std()), 1e-6)
