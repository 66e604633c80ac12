"""Class priors and class means of another scene than the one that a classifier was fitted in.

A classifier holds how frequent classes are in its own scene, and where their means lie. Another scene has other
frequencies. So both are estimated from its unlabelled pixels, see `KernelHead.readapted`; what the shots say stays.

Shapes: S feature sets, P pixels, K feature width.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.blocks import SceneBlock, view_blocks
from diffclip_dist.feature_extraction.extractor import held_values
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.fitting import LEAST_UNLABELLED
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.pattern_features import extract_for
from shards.archive.archive import ReadableScene
from shards.archive.manifest import ModalityRecord, SceneRecord

# A scene of no more pixels is read whole
WHOLE_SCENE_PIXELS: Final = 2**16
# Of a larger one, evenly spread squares are read, with so many pixels a side, and about so many of them
PATCH_SIDE: Final = 24
PATCHES: Final = 36


def is_another_scene(modalities: Sequence[ModalityRecord], record: SceneRecord) -> bool:
    """Whether a scene is another than the one that a classifier was fitted in.

    It is, if a modality that both have differs in its statistics or in its number of valid pixels. Names say nothing: a
    scene keeps its statistics when it is named anew or archived again.

    Args:
        modalities: of the classifier, as its scene had them.
        record: the scene.
    """
    fitted = {modality.name: modality for modality in modalities}
    return any(
        (one.mean, one.std, one.valid_pixels)
        != (fitted[one.name].mean, fitted[one.name].std, fitted[one.name].valid_pixels)
        for one in record.modalities
        if one.name in fitted
    )


def adapted_to_scene(
    fitted: FittedClassifier, scene: ReadableScene, modalities: Sequence[ModalityRecord], config: FewshotConfig
) -> FittedClassifier:
    """A kernel classifier with class priors and class means of a scene, for each of its parts.

    They are estimated from a bounded number of evenly spread pixels: for a part, from those that have exactly its
    modalities; for the classifier itself, from those that have every modality of the scene. A part that has fewer than
    `LEAST_UNLABELLED` keeps what it has, and so does a classifier of a format that did not hold priors apart.

    Args:
        fitted: the classifier.
        scene: another scene than its own.
        modalities: statistics to standardise with.
        config: whether class priors and class means are estimated.
    """
    parts = (*fitted.by_pattern, fitted)
    found: list[list[Tensor]] = [[] for _ in parts]
    for block in _sample(fitted, scene, modalities, config):
        complete = np.logical_and.reduce(list(block.view.valid.values()))
        features = extract_for([fitted], block.view, block.wanted, config)
        for values, (part, listed) in zip(found, features.parts(fitted, block.wanted), strict=True):
            values.append((listed.among(complete) if part is fitted else listed).values_SPK.cpu())
    *by_pattern, whole = (
        _adapted(part, torch.cat(values, dim=1), config) for part, values in zip(parts, found, strict=True)
    )
    return replace(whole, by_pattern=tuple(by_pattern))


def _adapted(part: FittedClassifier, unlabelled_SPK: Tensor, config: FewshotConfig) -> FittedClassifier:
    assert isinstance(part.head, KernelHead)
    if unlabelled_SPK.shape[1] < LEAST_UNLABELLED or part.head.prior_C is None:
        return part
    device = part.text_CE.device
    head = part.head if device.type == "cpu" else copy.deepcopy(part.head).cpu()
    with torch.no_grad():
        head = head.readapted(
            unlabelled_SPK, part.text_CE.cpu(), class_priors=config.class_priors == "estimated",
            class_means=config.discriminant,
        )  # fmt: skip
    return replace(part, head=head.to(device))


def _sample(
    fitted: FittedClassifier, scene: ReadableScene, modalities: Sequence[ModalityRecord], config: FewshotConfig
) -> Iterator[SceneBlock]:
    """Blocks that stand for a scene: all of a small one, evenly spread patches of a larger one."""
    height, width = scene.record.height, scene.record.width
    held = held_values(modalities, config)
    if height * width <= WHOLE_SCENE_PIXELS:
        yield from view_blocks(scene, modalities, fitted.encoder, config, held)
        return
    down = int(np.clip(round((PATCHES * height / width) ** 0.5), 1, PATCHES))
    for top in _starts(height, down):
        for left in _starts(width, PATCHES // down):
            rows, cols = slice(top, top + PATCH_SIDE), slice(left, left + PATCH_SIDE)
            yield from view_blocks(scene, modalities, fitted.encoder, config, held, rows=rows, cols=cols)


def _starts(length: int, count: int) -> list[int]:
    """Where evenly spread patches begin along a side."""
    starts = np.linspace(0, max(length - PATCH_SIDE, 0), count).astype(np.int64)
    return [int(start) for start in np.unique(starts)]
