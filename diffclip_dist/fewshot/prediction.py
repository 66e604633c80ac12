"""Classes and class probabilities of a scene's pixels, by fitted classifiers.

Shapes: S feature sets, P pixels, C classes, K features.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.extractor import ListedFeatures
from diffclip_dist.feature_extraction.reading import read_pixels
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_view import SceneView
from diffclip_dist.feature_extraction.threads import in_threads
from diffclip_dist.feature_extraction.views import Positions
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.labelled_pixels import LabelledPixels
from diffclip_dist.fewshot.pattern_features import PatternFeatures, extract_for

Mask = npt.NDArray[np.bool_]
Classes = npt.NDArray[np.int64]

# Pixels that are classified at once
PIXEL_BATCH: Final = 2**12


def classify(classifiers: Sequence[FittedClassifier], scene: SceneView, wanted: Mask, config: FewshotConfig) -> Classes:
    """Class index (classifier, row, col) of the wanted pixels, -1 elsewhere and where no modality has data.

    Args:
        classifiers: share one encoder, which reads the scene once for all of them.
        scene: the scene to read.
        wanted: bool (row, col).
        config: the read-out and the size of a batch.
    """
    return np.stack(classify_each(classifiers, scene, [wanted] * len(classifiers), config))


def classify_each(
    classifiers: Sequence[FittedClassifier],
    scene: SceneView,
    asked: Sequence[Mask],
    config: FewshotConfig,
    features: PatternFeatures | None = None,
) -> list[Classes]:
    """What `classify` gives, where each classifier is asked about pixels of its own.

    Args:
        classifiers: share one encoder, which reads the scene once for all of them.
        scene: the scene to read.
        asked: bool (row, col) for each classifier.
        config: the read-out and the size of a batch.
        features: for kernel classifiers, of all asked pixels, where they are known already.
    """
    encoder = classifiers[0].encoder
    assert all(one.encoder is encoder for one in classifiers)
    any_asked = np.logical_or.reduce(asked)
    found = [np.full(any_asked.shape, -1, dtype=np.int64) for _ in classifiers]
    with torch.no_grad():
        if isinstance(classifiers[0].head, KernelHead):
            known = features or extract_for(classifiers, scene, any_asked, config)
            for classes, one, pixels in zip(found, classifiers, asked, strict=True):
                _classify_features(one, known, pixels, classes)
            return found
        for part in read_pixels(encoder, scene.windows, scene.grid, any_asked & scene.present, config):
            for classes, one, pixels in zip(found, classifiers, asked, strict=True):
                own = pixels[part.rows, part.cols]
                if own.any():
                    indices = one.head(part.features, one.text_CE).argmax(dim=1).cpu().numpy()
                    classes[part.rows[own], part.cols[own]] = indices[own]
    return found


def sharing_encoder(classifiers: Sequence[FittedClassifier]) -> list[list[int]]:
    """The classifiers by number, those together that share one encoder; tuned ones have one each."""
    groups: dict[int, list[int]] = {}
    for number, one in enumerate(classifiers):
        groups.setdefault(id(one.encoder), []).append(number)
    return list(groups.values())


def _classify_features(fitted: FittedClassifier, known: PatternFeatures, asked: Mask, classes: Classes) -> None:
    """Sets the class indices (row, col) of the asked pixels."""
    for one, features in known.parts(fitted, asked):
        for piece, logits_PC in _in_pieces(one, features, known):
            classes[features.rows[piece], features.cols[piece]] = logits_PC.argmax(dim=1).cpu().numpy()


def _in_pieces(
    fitted: FittedClassifier, features: ListedFeatures, known: PatternFeatures
) -> Iterator[tuple[slice, Tensor]]:
    """Logits (P, C) of pixels by a kernel classifier, a bounded number of pixels at a time."""

    def logits(piece: slice) -> tuple[slice, Tensor]:
        names_PC = known.names_at(features.rows[piece], features.cols[piece])
        return piece, fitted.logits(features.values_SPK[:, piece], names_PC)

    pieces = (slice(start, start + PIXEL_BATCH) for start in range(0, len(features.rows), PIXEL_BATCH))
    return in_threads(logits, pieces)


def class_probabilities(
    fitted: FittedClassifier,
    scene: SceneView,
    wanted: Mask,
    config: FewshotConfig,
    features: PatternFeatures | None = None,
) -> npt.NDArray[np.float32]:
    """Probability of each class (row, col, class) at the wanted pixels, NaN elsewhere and where no modality has data.

    The softmax of the logits at the temperature of the classifier's calibration. Where it is not calibrated, they rank
    pixels by certainty and are no frequencies of being right.

    Args:
        fitted: the classifier.
        scene: the scene to read.
        wanted: bool (row, col).
        config: the read-out and the size of a batch.
        features: for a kernel classifier, of all wanted pixels, where they are known already.
    """
    found = np.full((*wanted.shape, len(fitted.text_CE)), np.nan, dtype=np.float32)
    temperature = fitted.calibration.temperature
    with torch.no_grad():
        if isinstance(fitted.head, KernelHead):
            known = features or extract_for([fitted], scene, wanted, config)
            for one, listed in known.parts(fitted, wanted):
                for piece, logits_PC in _in_pieces(one, listed, known):
                    probabilities = torch.softmax(logits_PC / temperature, dim=1).cpu().numpy()
                    found[listed.rows[piece], listed.cols[piece]] = probabilities
        else:
            for read in read_pixels(fitted.encoder, scene.windows, scene.grid, wanted & scene.present, config):
                logits_PC = fitted.head(read.features, fitted.text_CE)
                found[read.rows, read.cols] = torch.softmax(logits_PC / temperature, dim=1).cpu().numpy()
    return found


class ListedLogits(NamedTuple):
    """Logits of listed pixels.

    Attributes:
        rows: of the pixels.
        cols: of the pixels.
        logits_PC: by shots and names.
        by_shots_PC: by the shots alone.
    """

    rows: Positions
    cols: Positions
    logits_PC: Tensor
    by_shots_PC: Tensor


def logits_at(fitted: FittedClassifier, features: PatternFeatures, asked: Mask) -> ListedLogits:
    """Logits, on the CPU, of the asked pixels, bool (row, col), whose features were extracted.

    Args:
        fitted: a classifier with a kernel head.
        features: by its extractors.
        asked: few, for they are classified at once.
    """
    rows, cols, logits, by_shots = [], [], [], []
    with torch.no_grad():
        for one, listed in features.parts(fitted, asked):
            rows.append(listed.rows)
            cols.append(listed.cols)
            alone_PC = replace(one, prior=None).logits(listed.values_SPK, None)
            by_shots.append(alone_PC.cpu())
            names_PC = features.names_at(listed.rows, listed.cols)
            logits.append((alone_PC if one.prior is None else one.logits(listed.values_SPK, names_PC)).cpu())
    return ListedLogits(np.concatenate(rows), np.concatenate(cols), torch.cat(logits), torch.cat(by_shots))


def probabilities_at(
    scene: SceneReader, classifiers: Sequence[FittedClassifier], asked: Sequence[Pixels], config: FewshotConfig
) -> list[npt.NDArray[np.float32]]:
    """Class probabilities (pixel, class) of the asked pixels for each classifier, NaN where no modality has data.

    The scene's blocks are read once for all classifiers.

    Args:
        scene: the scene to read.
        classifiers: share one encoder, unless they were tuned.
        asked: the pixels that each classifier is asked about.
        config: the read-out and the size of a batch.
    """
    width = scene.scene.record.width
    found = [
        np.full((len(pixels), len(one.text_CE)), np.nan, dtype=np.float32)
        for pixels, one in zip(asked, classifiers, strict=True)
    ]
    listed = LabelledPixels.of_places(np.concatenate([pixels.rows * width + pixels.cols for pixels in asked]))
    kernel = isinstance(classifiers[0].head, KernelHead)
    for block in scene.blocks(lambda rows, cols: listed.map_of(rows, cols, width) > 0):
        features = extract_for(classifiers, block.view, block.wanted, config) if kernel else None
        for probability_PC, one, pixels in zip(found, classifiers, asked, strict=True):
            inside = block.holds(pixels.rows, pixels.cols)
            if not inside.any():
                continue
            down, right = block.origin
            place = pixels.rows[inside] - down, pixels.cols[inside] - right
            own = np.zeros_like(block.wanted)
            own[place] = True
            probability_HWC = class_probabilities(one, block.view, own, config, features)
            probability_PC[inside] = probability_HWC[place]
    return found
