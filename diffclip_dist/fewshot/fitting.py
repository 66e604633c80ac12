"""Fits a head, and the encoder if asked, to the shots alone; the last step is the model.

Shapes: P pixels, Q support pixels, M modalities, F read-out width, K feature width, E text width, C classes.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, SceneFeatures, extract_features
from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.reading import read_view, read_view_in_batches
from diffclip_dist.feature_extraction.scene_view import SceneView, encoder_for_pattern, read_sample
from diffclip_dist.feature_extraction.views import Positions, View, plain_view, training_view
from diffclip_dist.fewshot.calibration import fit_temperature
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.loss import alignment_loss
from diffclip_dist.fewshot.prediction import PatternFeatures
from shards.errors import BadInput

Mask = npt.NDArray[np.bool_]

# Labelled pixels of a kernel head: memory grows with their square and time with their cube
MOST_SUPPORT: Final = 5_000
# Of the pixels with data: combinations of modalities that fewer have are left to the classifier of all modalities
LEAST_PATTERN_SHARE: Final = 0.001
# Pixels: class priors and class means of fewer are not estimated
LEAST_UNLABELLED: Final = 100


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


def fit_classifiers(
    encoder: FeatureEncoder,
    scene: SceneView,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    seeds: Sequence[int],
    wanted: Mask,
    config: FewshotConfig,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[list[FittedClassifier], PatternFeatures | None]:
    """Fits a classifier to each of several supports in one scene.

    Args:
        encoder: knows the scene's modalities and no others.
        scene: the scene of the supports.
        supports: at least one pixel each.
        texts: the class texts of each; those that can learn do so in place.
        seeds: of each, for the views of a cosine head.
        wanted: bool (row, col), pixels whose features are extracted besides the supports' for kernel heads. They stand
            for the unlabelled scene.
        config: the head, and how it is fitted.
        report: called with a phase, steps done and steps in all.

    Returns:
        The classifiers; for kernel heads also the features that they share.

    Raises:
        BadInput: a support is too large for a kernel head.
    """
    if config.head == "kernel":
        return _fit_kernel_classifiers(encoder, scene, supports, texts, wanted, config, report)
    report("features", 0, 1)
    statistics = feature_statistics(encoder, scene, config)
    report("features", 1, 1)
    fitted = []
    for support, text, seed in _reported(supports, texts, seeds, report):
        with one_thread():  # many small steps, in which several threads would mostly wait for each other
            fitted.append(fit_cosine_classifier(encoder, scene, support, text, statistics, config, seed))
    return fitted, None


def _fit_kernel_classifiers(
    encoder: FeatureEncoder,
    scene: SceneView,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    wanted: Mask,
    config: FewshotConfig,
    report: Callable[[str, int, int], None],
) -> tuple[list[FittedClassifier], PatternFeatures]:
    """Kernel classifiers, with a part for each pattern of modalities that many pixels of the scene have.

    A pixel that lacks a modality is far from all pixels that have it. So whatever is learned without labels is learned
    from pixels that have the same modalities: statistics, metric, bandwidths, class priors and class means.
    """
    parts: list[list[FittedClassifier]] = [[] for _ in supports]
    part_supports: list[list[Support]] = [[] for _ in supports]
    by_pattern: dict[tuple[str, ...], tuple[Mask, SceneFeatures]] = {}
    patterns = scene.patterns(LEAST_PATTERN_SHARE)
    left = wanted
    for number, pattern in enumerate(patterns):
        report("reading", number, len(patterns) + 1)
        chosen = [_with_most_modalities(support, scene, pattern) for support in supports]
        pixels = wanted & scene.has_exactly(pattern)
        if all(chosen):
            left = left & ~pixels
        if not any(chosen):
            continue
        view, part_encoder = scene.only(pattern), encoder_for_pattern(encoder, pattern)
        extractor, features = _extract(part_encoder, view, pixels, [one for one in chosen if one], config)
        by_pattern[pattern] = pixels, features
        unlabelled_SPK = features.where(pixels)
        for part, learned_from, support, text in zip(parts, part_supports, chosen, texts, strict=True):
            if support:
                part.append(
                    fit_kernel_classifier(part_encoder, extractor, features, unlabelled_SPK, support, text, config)
                )
                learned_from.append(support)
    report("reading", len(patterns), len(patterns) + 1)
    used = [_with_most_modalities(support, scene, tuple(scene.valid)) or support for support in supports]
    extractor, features = _extract(encoder, scene, left, used, config)
    report("reading", len(patterns) + 1, len(patterns) + 1)
    unlabelled_SPK = features.where(wanted & scene.complete)
    fitted = [
        calibrated(
            replace(
                fit_kernel_classifier(encoder, extractor, features, unlabelled_SPK, support, text, config),
                by_pattern=tuple(part),
            ),
            [*learned_from, support],
        )
        for part, learned_from, (support, text, _) in zip(
            parts, part_supports, _reported(used, texts, range(len(texts)), report), strict=True
        )
    ]
    return fitted, PatternFeatures(wanted, by_pattern, features)


def calibrated(fitted: FittedClassifier, supports: Sequence[Support]) -> FittedClassifier:
    """A kernel classifier with its calibration, fitted to its shots and those of its parts.

    Args:
        fitted: the classifier.
        supports: of its parts, then its own.
    """
    logits, targets = [], []
    with torch.no_grad():
        for one, support in zip((*fitted.by_pattern, fitted), supports, strict=True):
            assert isinstance(one.head, KernelHead)
            targets_Q = torch.from_numpy(support.targets)
            # without its only shot, a class cannot be predicted
            others_Q = torch.bincount(targets_Q)[targets_Q] > 1
            logits.append(one.head.held_out_logits(targets_Q, one.text_CE)[others_Q])
            targets.append(targets_Q[others_Q])
    own = supports[-1].targets
    shots = len(own) / len(np.unique(own))
    return replace(fitted, calibration=fit_temperature(torch.cat(logits), torch.cat(targets), shots))


def _extract(
    encoder: FeatureEncoder,
    scene: SceneView,
    wanted: Mask,
    supports: Sequence[Support],
    config: FewshotConfig,
) -> tuple[FeatureExtractor, SceneFeatures]:
    """An extractor fitted to a scene, and the features of the wanted pixels and of the supports."""
    extractor = FeatureExtractor.fit(encoder, scene, config)
    read = wanted.copy()
    for support in supports:
        read[support.rows, support.cols] = True
    return extractor, extract_features(extractor, encoder, scene, read, config)


def _with_most_modalities(support: Support, scene: SceneView, pattern: Sequence[str]) -> Support | None:
    """Of each class the shots that have most of a pattern's modalities; None where no shot has any."""
    count_Q = sum(
        (scene.valid[name][support.rows, support.cols].astype(np.int64) for name in pattern),
        np.zeros(len(support.rows), dtype=np.int64),
    )
    most_Q = np.zeros_like(count_Q)
    for target in np.unique(support.targets):
        of_class_Q = support.targets == target
        most_Q[of_class_Q] = count_Q[of_class_Q].max()
    kept_Q = (count_Q == most_Q) & (count_Q > 0)
    return Support(support.rows[kept_Q], support.cols[kept_Q], support.targets[kept_Q]) if kept_Q.any() else None


def _reported(
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


def feature_statistics(encoder: FeatureEncoder, scene: SceneView, config: FewshotConfig) -> FeatureStatistics:
    """Mean and deviation of the features over pixels of the scene; no label is needed."""
    return FeatureStatistics.of(read_sample(encoder, scene, config).features)


def fit_cosine_classifier(
    encoder: FeatureEncoder,
    scene: SceneView,
    support: Support,
    text: ClassTextEncoder,
    statistics: FeatureStatistics,
    config: FewshotConfig,
    seed: int,
) -> FittedClassifier:
    """Fits projection, scale and text, and the encoder where the configuration says so, to the support.

    Args:
        encoder: stays as it is; a tuned one is a copy.
        scene: the scene of the shots.
        support: at least one pixel.
        text: the class texts; learns in place where it can.
        statistics: of the encoder's features in this scene.
        config: steps, rates, views.
        seed: of the views.
    """
    targets_P = torch.from_numpy(support.targets)
    first = read_view_in_batches(encoder, _view(scene, support, seed, 0, config), config)
    head = CosineHead(statistics, text.width)
    with torch.no_grad():
        head.start_from(first, targets_P, text())
    groups: list[dict[str, object]] = [{"params": [*head.parameters(), *text.parameters()]}]
    if config.tune_encoder:
        encoder = copy.deepcopy(encoder).requires_grad_(True)
        groups.append({"params": list(encoder.parameters()), "lr": config.encoder_learning_rate})
    seen = [first]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    for step in range(config.steps):
        number = step % config.views
        if config.tune_encoder:
            features = read_view(encoder, _view(scene, support, seed, number, config), config)
        else:
            if number == len(seen):
                view = _view(scene, support, seed, number, config)
                seen.append(read_view_in_batches(encoder, view, config))
            features = seen[number]
        loss = alignment_loss(head(features, text()), targets_P)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
    with torch.no_grad():
        return FittedClassifier(encoder.requires_grad_(False), head, text().clone())


def _view(scene: SceneView, support: Support, seed: int, number: int, config: FewshotConfig) -> View:
    """View 0 is the one that the pixels will be read from."""
    if number == 0:
        return plain_view(scene.windows, scene.grid, support.rows, support.cols)
    position = (seed, number)
    return training_view(scene.windows, scene.grid, support.rows, support.cols, position, config.modality_dropout)


def fit_kernel_classifier(
    encoder: FeatureEncoder,
    extractor: FeatureExtractor,
    features: SceneFeatures,
    unlabelled_SPK: Tensor,
    support: Support,
    text: ClassTextEncoder,
    config: FewshotConfig,
) -> FittedClassifier:
    """Fits a kernel head to the support, in closed form.

    Args:
        encoder: the one that the descriptions come from; stays as it is.
        extractor: learned without a label.
        features: of the support, at least.
        unlabelled_SPK: features of pixels of the scene that have every modality of the encoder. Class priors and class
            means are estimated from `LEAST_UNLABELLED` or more.
        support: at least one pixel.
        text: the class texts; not trained.
        config: whether class priors and class means are estimated.

    Raises:
        BadInput: the support is too large.
    """
    if len(support.rows) > MOST_SUPPORT:
        raise BadInput(
            f"labels: {len(support.rows)} labelled pixels, and the kernel head takes at most {MOST_SUPPORT}, since its "
            "equations grow with their square; give fewer, or use the cosine head"
        )
    with torch.no_grad():
        text_CE = text().clone()
        support_SQK = features.at(support.rows, support.cols)
        targets_Q = torch.from_numpy(support.targets)
        enough = unlabelled_SPK.shape[1] >= LEAST_UNLABELLED
        pixels_SPK = unlabelled_SPK if enough else torch.cat([unlabelled_SPK, support_SQK], dim=1)
        head = KernelHead.fit(extractor, pixels_SPK, support_SQK, targets_Q, text_CE)
        head = head.adapted(
            pixels_SPK, text_CE, class_priors=enough and config.class_priors == "estimated",
            class_means=enough and config.discriminant,
        )  # fmt: skip
    return FittedClassifier(encoder, head, text_CE)
