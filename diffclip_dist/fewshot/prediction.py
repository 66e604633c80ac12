"""Classes and class probabilities of a scene's pixels, by fitted classifiers.

Shapes: S feature sets, P pixels, C classes, K features.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.extractor import SceneFeatures, extract_features
from diffclip_dist.feature_extraction.reading import read_pixels
from diffclip_dist.feature_extraction.scene_view import SceneView
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead

Mask = npt.NDArray[np.bool_]

# Pixels that are classified at once
PIXEL_BATCH: Final = 2**14


@dataclass(frozen=True)
class PatternFeatures:
    """Features of a scene for kernel classifiers and their parts.

    Attributes:
        wanted: bool (row, col), the pixels to classify.
        by_pattern: modalities of a part to its pixels, bool (row, col), and their features by its extractor.
        whole: features by the extractor of the classifiers themselves, of all pixels that no part takes.
    """

    wanted: Mask
    by_pattern: Mapping[tuple[str, ...], tuple[Mask, SceneFeatures]]
    whole: SceneFeatures

    def parts(self, fitted: FittedClassifier) -> Iterator[tuple[FittedClassifier, Mask, SceneFeatures]]:
        """The parts of a classifier, then the classifier itself, each with its pixels and their features."""
        left = self.wanted
        for part in fitted.by_pattern:
            pixels, features = self.by_pattern[part.modalities]
            left = left & ~pixels
            yield part, pixels, features
        yield fitted, left, self.whole


def classify(
    classifiers: list[FittedClassifier], scene: SceneView, wanted: Mask, config: FewshotConfig
) -> npt.NDArray[np.int64]:
    """Class index (classifier, row, col) of the wanted pixels, -1 elsewhere and where no modality has data.

    Args:
        classifiers: share one encoder, which reads the scene once for all of them.
        scene: the scene to read.
        wanted: bool (row, col).
        config: the read-out and the size of a batch.
    """
    encoder = classifiers[0].encoder
    assert all(one.encoder is encoder for one in classifiers)
    if isinstance(classifiers[0].head, KernelHead):
        return classify_features(classifiers, extract_by_pattern(classifiers[0], scene, wanted, config))
    found = np.full((len(classifiers), *wanted.shape), -1, dtype=np.int64)
    for part in read_pixels(encoder, scene.windows, scene.grid, wanted & scene.present, config):
        with torch.no_grad():
            for number, one in enumerate(classifiers):
                found[number, part.rows, part.cols] = one.head(part.features, one.text_CE).argmax(dim=1).cpu().numpy()
    return found


def class_probabilities(
    fitted: FittedClassifier, scene: SceneView, wanted: Mask, config: FewshotConfig
) -> npt.NDArray[np.float32]:
    """Probability of each class (row, col, class) at the wanted pixels, NaN elsewhere and where no modality has data.

    The softmax of the logits at the temperature of the classifier's calibration. Where it is not calibrated, they rank
    pixels by certainty and are no frequencies of being right.

    Args:
        fitted: the classifier.
        scene: the scene to read.
        wanted: bool (row, col).
        config: the read-out and the size of a batch.
    """
    found = np.full((*wanted.shape, len(fitted.text_CE)), np.nan, dtype=np.float32)
    temperature = fitted.calibration.temperature
    with torch.no_grad():
        if isinstance(fitted.head, KernelHead):
            for one, pixels, features in extract_by_pattern(fitted, scene, wanted, config).parts(fitted):
                assert isinstance(one.head, KernelHead)
                rows, cols, values_SPK = features.listed(pixels)
                for start in range(0, len(rows), PIXEL_BATCH):
                    piece = slice(start, start + PIXEL_BATCH)
                    logits_PC = one.head.logits(values_SPK[:, piece], one.text_CE)
                    found[rows[piece], cols[piece]] = torch.softmax(logits_PC / temperature, dim=1).cpu().numpy()
        else:
            for read in read_pixels(fitted.encoder, scene.windows, scene.grid, wanted & scene.present, config):
                logits_PC = fitted.head(read.features, fitted.text_CE)
                found[read.rows, read.cols] = torch.softmax(logits_PC / temperature, dim=1).cpu().numpy()
    return found


def classify_features(classifiers: list[FittedClassifier], extracted: PatternFeatures) -> npt.NDArray[np.int64]:
    """Class index (classifier, row, col) of the wanted pixels, -1 elsewhere.

    Args:
        classifiers: classifiers with kernel heads that share their extractors.
        extracted: by these extractors.
    """
    found = np.full((len(classifiers), *extracted.wanted.shape), -1, dtype=np.int64)
    for number, classifier in enumerate(classifiers):
        for one, pixels, features in extracted.parts(classifier):
            rows, cols, values_SPK = features.listed(pixels)
            if not len(rows):
                continue
            with torch.no_grad():
                classes = [
                    one.head(part_SPK, one.text_CE).argmax(dim=1)
                    for part_SPK in torch.split(values_SPK, PIXEL_BATCH, dim=1)
                ]
            found[number, rows, cols] = torch.cat(classes).cpu().numpy()
    return found


def logits_at(
    fitted: FittedClassifier, extracted: PatternFeatures, pixels: Mask
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Tensor]:
    """Rows, columns and logits (P, C) of those of the pixels, bool (row, col), whose features were extracted.

    Args:
        fitted: a classifier with a kernel head.
        extracted: by its extractors.
        pixels: few, for they are classified at once.
    """
    rows, cols, logits = [], [], []
    with torch.no_grad():
        for one, own, features in extracted.parts(fitted):
            assert isinstance(one.head, KernelHead)
            part_rows, part_cols, values_SPK = features.listed(own & pixels)
            rows.append(part_rows)
            cols.append(part_cols)
            logits.append(one.head.logits(values_SPK, one.text_CE))
    return np.concatenate(rows), np.concatenate(cols), torch.cat(logits)


def extract_by_pattern(
    fitted: FittedClassifier, scene: SceneView, wanted: Mask, config: FewshotConfig
) -> PatternFeatures:
    """Features of the wanted pixels for a kernel classifier and its parts."""
    by_pattern = {}
    left = wanted
    for part in fitted.by_pattern:
        assert isinstance(part.head, KernelHead)
        pixels = wanted & scene.has_exactly(part.modalities)
        left = left & ~pixels
        view = scene.only(part.modalities)
        features = extract_features(part.head.extractor, part.encoder, view, pixels, config)
        by_pattern[part.modalities] = pixels, features
    assert isinstance(fitted.head, KernelHead)
    whole = extract_features(fitted.head.extractor, fitted.encoder, scene, left, config)
    return PatternFeatures(wanted, by_pattern, whole)
