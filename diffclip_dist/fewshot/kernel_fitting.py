"""Fits kernel heads to the shots, and to what a scene's unlabelled pixels tell; nothing is trained.

Shapes: P pixels, Q support pixels, K feature width, S feature sets, E text width, C classes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.blocks import Wanted
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, ListedFeatures
from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_sample import SceneSample
from diffclip_dist.feature_extraction.scene_survey import Pattern
from diffclip_dist.feature_extraction.scene_view import encoder_for_pattern
from diffclip_dist.feature_extraction.views import Positions
from diffclip_dist.fewshot.calibration import fit_temperature
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.labelled_pixels import LabelledPixels
from diffclip_dist.fewshot.names_prior import NamesPrior, ToldByName, read_names
from diffclip_dist.fewshot.pattern_features import PatternExtractor, PatternFeatures, extract_by_pattern
from diffclip_dist.fewshot.support import Support, reported
from shards.errors import BadInput

Mask = npt.NDArray[np.bool_]

# Labelled pixels of a kernel head: memory grows with their square and time with their cube
MOST_SUPPORT: Final = 5_000
# Of the pixels with data: combinations of modalities that fewer have are left to the classifier of all modalities
LEAST_PATTERN_SHARE: Final = 0.001
# Pixels: class priors and class means of fewer are not estimated
LEAST_UNLABELLED: Final = 100


def fit_kernel_classifiers(
    scene: SceneReader,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    config: FewshotConfig,
    wanted: Wanted,
    report: Callable[[str, int, int], None],
    told: ToldByName | None,
) -> tuple[list[FittedClassifier], PatternFeatures | None]:
    """Kernel classifiers, with a part for each pattern of modalities that many pixels of the scene have.

    A pixel that lacks a modality is far from all pixels that have it. So whatever is learned without labels is learned
    from pixels that have the same modalities: statistics, metric, bandwidths, class priors and class means.
    """
    for support in supports:
        _check_size(support)
    patterns, everything = scene.survey.patterns(LEAST_PATTERN_SHARE), scene.survey.names
    learn = _learn_from_patches if scene.view is None else _learn_from_whole
    learned = learn(scene, [*patterns, everything], supports, config, wanted, report, told)
    priors = [None if told is None else _fit_prior(told, learned, support) for support in supports]
    parts: list[list[FittedClassifier]] = [[] for _ in supports]
    part_supports: list[list[Support]] = [[] for _ in supports]
    for pattern in patterns:
        for part, learned_from, chosen, text, prior in zip(
            parts, part_supports, learned.chosen[pattern], texts, priors, strict=True
        ):
            if chosen:
                part.append(_fit_part(learned.by_pattern[pattern], chosen, text, config, prior))
                learned_from.append(chosen)
    fitted = []
    used = [chosen or support for chosen, support in zip(learned.chosen[everything], supports, strict=True)]
    for part, learned_from, prior, (support, text, _) in zip(
        parts, part_supports, priors, reported(used, texts, range(len(texts)), report), strict=True
    ):
        whole = _fit_part(learned.by_pattern[everything], support, text, config, prior)
        whole = replace(whole, by_pattern=tuple(part))
        fitted.append(calibrated(whole, [*learned_from, support], learned) if len(support.rows) else whole)
    return fitted, learned.features


def _fit_prior(told: ToldByName, learned: "_Learned", support: Support) -> NamesPrior:
    """The prior by names of a classifier of some shots."""
    told_QC = learned.names_at(support)
    assert told_QC is not None
    device = next(iter(learned.by_pattern.values())).unlabelled_SPK.device
    return NamesPrior.fit(told, told_QC, torch.from_numpy(support.targets)).to(device)


def calibrated(fitted: FittedClassifier, supports: Sequence[Support], learned: "_Learned") -> FittedClassifier:
    """A kernel classifier with its calibration, fitted to its shots and those of its parts.

    Args:
        fitted: the classifier.
        supports: of its parts, then its own.
        learned: what they were fitted with.
    """
    logits, targets = [], []
    held_out: set[tuple[int, int]] = set()
    with torch.no_grad():
        for one, support in zip((*fitted.by_pattern, fitted), supports, strict=True):
            assert isinstance(one.head, KernelHead)
            targets_Q = torch.from_numpy(support.targets).to(one.text_CE.device)
            # without its only shot, a class cannot be predicted
            others_Q = torch.bincount(targets_Q)[targets_Q] > 1
            held_out_QC = one.head.held_out_logits(targets_Q, one.text_CE)
            if one.prior is not None and (told_QC := learned.names_at(support)) is not None:
                held_out_QC = one.prior.logits(held_out_QC, told_QC.to(held_out_QC.device))
            logits.append(held_out_QC[others_Q])
            targets.append(targets_Q[others_Q])
            places_Q2 = np.stack([support.rows, support.cols], axis=1)[others_Q.cpu().numpy()]
            held_out |= {(row, col) for row, col in places_Q2.tolist()}
    own = supports[-1].targets
    shots = len(own) / len(np.unique(own))
    found = fit_temperature(torch.cat(logits).cpu(), torch.cat(targets).cpu(), shots)
    # a shot that several parts learned from is one shot
    return replace(fitted, calibration=replace(found, held_out_pixels=len(held_out)))


@dataclass(frozen=True)
class _LearnedPattern:
    """What kernel classifiers of one pattern of modalities are fitted with.

    Attributes:
        by: the extractor.
        unlabelled_SPK: features of pixels that have these modalities and no others.
        unlabelled_names_PC: what class names tell of the same pixels; None without a prior by names.
        shots: features of the pixels of all supports that have any of these modalities, and maybe of others.
    """

    by: PatternExtractor
    unlabelled_SPK: Tensor
    unlabelled_names_PC: Tensor | None
    shots: ListedFeatures


@dataclass(frozen=True)
class _Learned:
    """What kernel classifiers are fitted with.

    Attributes:
        chosen: for each pattern the shots of each support, see `_with_most_modalities`.
        by_pattern: the patterns, and all modalities.
        features: of the whole scene, where it is read at once.
        shots: the pixels of all supports.
        width: of the scene.
        shot_names_PC: what class names tell of the shots; None without a prior by names.
    """

    chosen: Mapping[Pattern, Sequence[Support | None]]
    by_pattern: Mapping[Pattern, _LearnedPattern]
    features: PatternFeatures | None
    shots: LabelledPixels
    width: int
    shot_names_PC: Tensor | None

    def names_at(self, support: Support) -> Tensor | None:
        """What class names tell of the pixels of a support (Q, C)."""
        if self.shot_names_PC is None:
            return None
        listed, _ = self.shots.find(support.rows * self.width + support.cols)
        return self.shot_names_PC[torch.from_numpy(listed)]


def _learn_from_whole(
    scene: SceneReader,
    patterns: Sequence[Pattern],
    supports: Sequence[Support],
    config: FewshotConfig,
    wanted: Wanted,
    report: Callable[[str, int, int], None],
    told: ToldByName | None,
) -> _Learned:
    """Extracts all wanted pixels of a scene that is read at once."""
    view = scene.view
    assert view is not None
    height, width = view.present.shape
    asked = wanted(slice(0, height), slice(0, width))
    shots = np.zeros_like(asked)
    for support in supports:
        shots[support.rows, support.cols] = True
    chosen = {
        pattern: [
            _with_most_modalities(
                support, {name: mask[support.rows, support.cols] for name, mask in view.valid.items()}, pattern
            )
            for support in supports
        ]
        for pattern in patterns
    }
    *parts, everything = patterns
    used = [pattern for pattern in parts if any(chosen[pattern])]
    report("reading", 0, 1)
    extractors = {
        pattern: _fit_extractor(scene, SceneSample(view, np.ones_like(asked)), pattern, config)
        for pattern in (*used, everything)
    }
    features = extract_by_pattern(
        [extractors[pattern] for pattern in used], extractors[everything],
        [pattern for pattern in used if all(chosen[pattern])], view, asked, config, by_all=shots,
        names=None if told is None else told.names,
    )  # fmt: skip
    report("reading", 1, 1)
    parts_of = {pattern: (listed.among(pixels), listed) for pattern, (pixels, listed) in features.by_pattern.items()}
    complete = asked & view.complete_among(np.ones_like(asked))
    parts_of[everything] = features.whole.among(complete), features.whole
    by_pattern = {
        pattern: _LearnedPattern(
            extractors[pattern], unlabelled.values_SPK, features.names_at(unlabelled.rows, unlabelled.cols), listed
        )
        for pattern, (unlabelled, listed) in parts_of.items()
    }
    places = LabelledPixels.of_places(np.flatnonzero(shots))
    return _Learned(chosen, by_pattern, features, places, width, features.names_at(*np.divmod(places.places, width)))


def _learn_from_patches(
    scene: SceneReader,
    patterns: Sequence[Pattern],
    supports: Sequence[Support],
    config: FewshotConfig,
    wanted: Wanted,
    report: Callable[[str, int, int], None],
    told: ToldByName | None,
) -> _Learned:
    """Extracts a bounded number of unlabelled pixels of each pattern, and then all supports in one pass."""
    del wanted  # patches stand for the scene
    extractors, unlabelled, unlabelled_names = {}, {}, {}
    for number, pattern in enumerate(patterns):
        report("reading", number, len(patterns) + 1)
        sample = scene.sample(pattern)
        extractors[pattern] = _fit_extractor(scene, sample, pattern, config)
        alike = sample.pixels & sample.view.has_exactly(pattern)
        if not alike.any():  # no pixel has every modality
            alike = sample.pixels
        listed_alike = extractors[pattern].extract(sample.view, alike, config)
        unlabelled[pattern] = listed_alike.values_SPK
        unlabelled_names[pattern] = (
            None if told is None else read_names(told.names, sample.view, listed_alike.rows, listed_alike.cols)
        )
    del sample, alike  # patches of many bands are large
    report("reading", len(patterns), len(patterns) + 1)
    width = scene.scene.record.width
    shots = LabelledPixels.of_places(np.concatenate([support.rows * width + support.cols for support in supports]))
    shot_names_PC = None if told is None else torch.zeros(len(shots), len(told.classes))
    found = {pattern: [ListedFeatures.none_like(features)] for pattern, features in unlabelled.items()}
    valid = {name: np.zeros(len(shots), np.bool_) for name in scene.survey.names}
    for block in scene.blocks(lambda rows, cols: shots.map_of(rows, cols, width) > 0):
        rows, cols = np.nonzero(block.wanted)
        down, right = block.origin
        listed, _ = shots.find((rows + down) * width + cols + right)
        for name, mask in block.view.valid.items():
            valid[name][listed] = mask[rows, cols]
        if told is not None and shot_names_PC is not None:
            shot_names_PC[torch.from_numpy(listed)] = read_names(told.names, block.view, rows, cols)
        for pattern, extractor in extractors.items():
            found[pattern].append(extractor.extract(block.view, block.wanted, config).moved(down, right))
    report("reading", len(patterns) + 1, len(patterns) + 1)
    chosen: dict[Pattern, list[Support | None]] = {pattern: [] for pattern in patterns}
    for support in supports:
        listed, _ = shots.find(support.rows * width + support.cols)
        has = {name: of_shots[listed] for name, of_shots in valid.items()}
        for pattern in patterns:
            chosen[pattern].append(_with_most_modalities(support, has, pattern))
    by_pattern = {
        pattern: _LearnedPattern(
            extractors[pattern], unlabelled[pattern], unlabelled_names[pattern], ListedFeatures.joined(found[pattern])
        )
        for pattern in patterns
    }
    return _Learned(chosen, by_pattern, None, shots, width, shot_names_PC)


def _fit_extractor(
    scene: SceneReader, sample: SceneSample, pattern: Pattern, config: FewshotConfig
) -> PatternExtractor:
    """The extractor of pixels that have some modalities alone."""
    encoder = scene.encoder if pattern == scene.survey.names else encoder_for_pattern(scene.encoder, pattern)
    return PatternExtractor(encoder, FeatureExtractor.fit(encoder, sample.view.only(pattern), sample.pixels, config))


def _fit_part(
    learned: _LearnedPattern,
    support: Support,
    text: ClassTextEncoder,
    config: FewshotConfig,
    prior: NamesPrior | None,
) -> FittedClassifier:
    shots_SQK = learned.shots.at(support.rows, support.cols)
    added_PC = names_PC = None
    if prior is not None:
        assert learned.unlabelled_names_PC is not None
        names_PC = learned.unlabelled_names_PC.to(learned.unlabelled_SPK.device)
        added_PC = prior.added_scores(names_PC)
    with one_thread():  # small equations, in which several threads would mostly wait for each other
        fitted = fit_kernel_classifier(
            learned.by.encoder, learned.by.extractor, shots_SQK, learned.unlabelled_SPK, support.targets, text, config,
            added_PC,
        )  # fmt: skip
        if prior is not None and names_PC is not None and not len(support.targets):
            fitted = with_means_by_names(fitted, prior, learned.unlabelled_SPK, names_PC, config)
    return replace(fitted, prior=prior)


def with_means_by_names(
    fitted: FittedClassifier, prior: NamesPrior, unlabelled_SPK: Tensor, names_PC: Tensor, config: FewshotConfig
) -> FittedClassifier:
    """A kernel classifier without shots, with class means of a scene, where they are to be estimated.

    Args:
        fitted: the classifier.
        prior: what class names tell.
        unlabelled_SPK: features of pixels of the scene.
        names_PC: what the names tell of the same pixels.
        config: whether class means are estimated.
    """
    if not config.discriminant or unlabelled_SPK.shape[1] < LEAST_UNLABELLED or not prior.known.any():
        return fitted
    assert isinstance(fitted.head, KernelHead)
    with torch.no_grad():
        head = fitted.head.adapted_to_names(unlabelled_SPK, fitted.text_CE, prior.alone(names_PC), prior.known)
    return replace(fitted, head=head)


def _with_most_modalities(support: Support, valid: Mapping[str, Mask], pattern: Sequence[str]) -> Support | None:
    """Of each class the shots that have most of a pattern's modalities; None where no shot has any.

    Args:
        support: the shots.
        valid: modality name to bool (shot), which of them have data of it.
        pattern: the modalities.
    """
    count_Q = sum((valid[name].astype(np.int64) for name in pattern), np.zeros(len(support.rows), dtype=np.int64))
    most_Q = np.zeros_like(count_Q)
    for target in np.unique(support.targets):
        of_class_Q = support.targets == target
        most_Q[of_class_Q] = count_Q[of_class_Q].max()
    kept_Q = (count_Q == most_Q) & (count_Q > 0)
    return Support(support.rows[kept_Q], support.cols[kept_Q], support.targets[kept_Q]) if kept_Q.any() else None


def _check_size(support: Support) -> None:
    if len(support.rows) > MOST_SUPPORT:
        raise BadInput(
            f"labels: {len(support.rows)} labelled pixels, and the kernel head takes at most {MOST_SUPPORT}, since its "
            "equations grow with their square; give fewer, or use the cosine head"
        )


def fit_kernel_classifier(
    encoder: FeatureEncoder,
    extractor: FeatureExtractor,
    support_SQK: Tensor,
    unlabelled_SPK: Tensor,
    targets: Positions,
    text: ClassTextEncoder,
    config: FewshotConfig,
    added_PC: Tensor | None = None,
) -> FittedClassifier:
    """Fits a kernel head to the support, in closed form.

    Args:
        encoder: the one that the features come from; stays as it is.
        extractor: learned without a label.
        support_SQK: features of the support; without any, the head adds nothing to what class names tell.
        unlabelled_SPK: features of pixels of the scene that have every modality of the encoder. Class priors and class
            means are estimated from `LEAST_UNLABELLED` or more.
        targets: index of the class of each pixel of the support.
        text: the class texts; not trained.
        config: whether class priors and class means are estimated.
        added_PC: what class names add to the log-likelihoods of the unlabelled pixels; None adds nothing.
    """
    with torch.no_grad():
        device = support_SQK.device
        text_CE = text().to(device, copy=True)
        targets_Q = torch.from_numpy(targets).to(device)
        enough = unlabelled_SPK.shape[1] >= LEAST_UNLABELLED and len(targets) > 0
        pixels_SPK = unlabelled_SPK if enough else torch.cat([unlabelled_SPK, support_SQK], dim=1)
        head = KernelHead.fit(extractor, pixels_SPK, support_SQK, targets_Q, text_CE)
        head = head.adapted(
            pixels_SPK, text_CE, class_priors=enough and config.class_priors == "estimated",
            class_means=enough and config.discriminant, added_PC=added_PC if enough else None,
        )  # fmt: skip
    return FittedClassifier(encoder, head, text_CE)
