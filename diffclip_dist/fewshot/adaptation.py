"""Class priors and class means of another scene than the one that a classifier was fitted in.

A classifier holds how frequent classes are in its own scene, and where their means lie. Another scene has other
frequencies. So both are estimated from its unlabelled pixels, see `KernelHead.readapted`; what the shots say stays.

Shapes: S feature sets, P pixels, K feature width.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_survey import Pattern
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_fitting import LEAST_UNLABELLED, with_means_by_names
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.names_prior import NamesPrior, read_names
from diffclip_dist.fewshot.pattern_features import extractor_of
from shards.archive.archive import ReadableScene
from shards.archive.manifest import ModalityRecord, SceneRecord


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

    They are estimated from pixels that stand for the scene's, see `SceneReader.sample`: for a part, from those that
    have exactly its modalities; for the classifier itself, from those that have every modality of the scene, unless a
    part takes them. Where there are fewer than `LEAST_UNLABELLED`, both stay as they are. So they do in a classifier of
    a format that did not hold priors apart.

    Args:
        fitted: the classifier.
        scene: another scene than its own.
        modalities: statistics to standardise with.
        config: whether class priors and class means are estimated.
    """
    reader = SceneReader.open(scene, fitted.encoder, config, modalities=modalities)
    by_pattern = tuple(_adapted(part, reader, part.modalities, config) for part in fitted.by_pattern)
    everything = reader.survey.names
    if everything not in (part.modalities for part in fitted.by_pattern):
        fitted = _adapted(fitted, reader, everything, config)
    return replace(fitted, by_pattern=by_pattern)


def with_prior(fitted: FittedClassifier, prior: NamesPrior) -> FittedClassifier:
    """A kernel classifier, and its parts, with another prior by names."""
    return replace(fitted, prior=prior, by_pattern=tuple(replace(part, prior=prior) for part in fitted.by_pattern))


def _adapted(part: FittedClassifier, reader: SceneReader, pattern: Pattern, config: FewshotConfig) -> FittedClassifier:
    """A classifier with class priors and class means of the scene's pixels of one pattern of modalities."""
    assert isinstance(part.head, KernelHead)
    known = set(pattern) <= set(reader.survey.names)
    if part.head.prior_C is None or not known or not reader.survey.cells(pattern).any():
        return part
    sample = reader.sample(pattern)
    alike = sample.pixels & sample.view.has_exactly(pattern)
    with torch.no_grad():
        listed = extractor_of(part).extract(sample.view, alike, config)
        unlabelled_SPK = listed.values_SPK
        if unlabelled_SPK.shape[1] < LEAST_UNLABELLED:
            return part
        added_PC = None
        if part.prior is not None:
            told_PC = read_names(part.prior.names, sample.view, listed.rows, listed.cols).to(unlabelled_SPK.device)
            if not part.head.support_SQK.shape[1]:
                return with_means_by_names(part, part.prior, unlabelled_SPK, told_PC, config)
            added_PC = part.prior.added_scores(told_PC)
        head = part.head.readapted(
            unlabelled_SPK, part.text_CE, class_priors=config.class_priors == "estimated",
            class_means=config.discriminant, added_PC=added_PC,
        )  # fmt: skip
    return replace(part, head=head)
