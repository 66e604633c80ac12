"""Features of pixels by the extractor of what they have data of.

A pixel that lacks a modality is far from all pixels that have it. So each pattern of present modalities has an
extractor of its own, and all other pixels are left to the extractor of all modalities.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, ListedFeatures, extract_features
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_survey import Pattern
from diffclip_dist.feature_extraction.scene_view import SceneView
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.names_prior import read_names_map
from diffclip_dist.words.name_classifier import NameClassifier

Mask = npt.NDArray[np.bool_]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PatternExtractor:
    """An extractor, with the encoder that it was fitted with, which knows these modalities and no others."""

    encoder: FeatureEncoder
    extractor: FeatureExtractor

    @property
    def modalities(self) -> Pattern:
        """Names of the modalities that it reads."""
        return tuple(schema.name for schema in self.encoder.modalities)

    def extract(self, scene: SceneView, wanted: Mask, config: FeatureConfig) -> ListedFeatures:
        """Features of the wanted pixels that have data of any of its modalities."""
        return extract_features(self.extractor, self.encoder, scene.only(self.modalities), wanted, config)


@dataclass(frozen=True)
class PatternFeatures:
    """Features of a scene's pixels for kernel classifiers and their parts.

    Attributes:
        wanted: bool (row, col), the pixels to classify.
        by_pattern: modalities of a part to its pixels, bool (row, col), and their features by its extractor.
        whole: features by the extractor of all modalities, of all pixels that some classifier has no part for.
        names_HWC: what class names tell of the pixels; None where no classifier has a prior by names.
    """

    wanted: Mask
    by_pattern: Mapping[Pattern, tuple[Mask, ListedFeatures]]
    whole: ListedFeatures
    names_HWC: Tensor | None = None

    def names_at(self, rows: Positions, cols: Positions) -> Tensor | None:
        """What class names tell of pixels (P, C)."""
        return None if self.names_HWC is None else self.names_HWC[rows, cols]

    def parts(self, fitted: FittedClassifier, asked: Mask) -> Iterator[tuple[FittedClassifier, ListedFeatures]]:
        """The parts of a classifier, then the classifier itself, each with the features of its asked pixels."""
        left = self.wanted & asked
        for part in fitted.by_pattern:
            pixels, features = self.by_pattern[part.modalities]
            yield part, features.among(pixels & left)
            left = left & ~pixels
        yield fitted, self.whole.among(left)


def extract_by_pattern(
    patterns: Sequence[PatternExtractor],
    whole: PatternExtractor,
    shared: Collection[Pattern],
    scene: SceneView,
    wanted: Mask,
    config: FeatureConfig,
    by_all: Mask | None = None,
    names: NameClassifier | None = None,
) -> PatternFeatures:
    """Features of the wanted pixels, each by the extractor of its pattern.

    Args:
        patterns: the extractors of patterns.
        whole: the extractor of all modalities.
        shared: patterns that every classifier has a part for; the extractor of all modalities leaves their pixels out.
        scene: where windows are cut.
        wanted: bool (row, col).
        config: the read-out, the rounds of smoothing and the size of a batch.
        by_all: bool (row, col), pixels whose features every extractor gives besides, such as shots.
        names: of the classes; None where no classifier has a prior by names.
    """
    besides = np.zeros_like(wanted) if by_all is None else by_all
    by_pattern = {}
    left = wanted
    for one in patterns:
        pixels = wanted & scene.has_exactly(one.modalities)
        if one.modalities in shared:
            left = left & ~pixels
        by_pattern[one.modalities] = pixels, one.extract(scene, pixels | besides, config)
    names_HWC = None if names is None else read_names_map(names, scene, wanted | besides)
    return PatternFeatures(wanted, by_pattern, whole.extract(scene, left | besides, config), names_HWC)


def extract_for(
    classifiers: Sequence[FittedClassifier], scene: SceneView, wanted: Mask, config: FeatureConfig
) -> PatternFeatures:
    """Features of the wanted pixels for kernel classifiers that share their extractors and their names."""
    parts = {part.modalities: extractor_of(part) for one in classifiers for part in one.by_pattern}
    shared = [name for name in parts if all(name in (p.modalities for p in one.by_pattern) for one in classifiers)]
    prior = classifiers[0].prior
    names = None if prior is None else prior.names
    assert all((one.prior and one.prior.names) is names for one in classifiers)
    return extract_by_pattern(
        list(parts.values()), extractor_of(classifiers[0]), shared, scene, wanted, config, names=names
    )


def extractor_of(fitted: FittedClassifier) -> PatternExtractor:
    """What extracts the features of a kernel classifier."""
    assert isinstance(fitted.head, KernelHead)
    return PatternExtractor(fitted.encoder, fitted.head.extractor)
