"""Fits a head, and the encoder if asked, to the shots alone; the last step is the model.

Shapes: P pixels, Q support pixels, M modalities, F read-out width, K feature width, E text width, C classes.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, SceneFeatures, extract_features
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.reading import read_pixels, read_view, read_view_in_batches
from diffclip_dist.feature_extraction.scene_view import SceneView, read_sample
from diffclip_dist.feature_extraction.views import Positions, View, plain_view, training_view
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.episodes import Pixels
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.loss import alignment_loss
from shards.errors import BadInput

# Pixels that are classified at once
PIXEL_BATCH: Final = 2**14
# Labelled pixels of a kernel head: memory grows with their square and time with their cube
MOST_SUPPORT: Final = 5_000


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


@dataclass(frozen=True)
class FittedClassifier:
    """An encoder (the given one, unless it was tuned), a head fitted to the shots, and unit class vectors (C, E)."""

    encoder: FeatureEncoder
    head: CosineHead | KernelHead
    text_CE: Tensor

    def to(self, device: torch.device | str) -> "FittedClassifier":
        """The same on another device, where it then reads and classifies scenes; this one stays where it is."""
        return FittedClassifier(
            copy.deepcopy(self.encoder).to(device), copy.deepcopy(self.head).to(device), self.text_CE.to(device)
        )


def fit_classifiers(
    encoder: FeatureEncoder,
    scene: SceneView,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    seeds: Sequence[int],
    wanted: npt.NDArray[np.bool_],
    config: FewshotConfig,
    report: Callable[[str, int, int], None] = lambda *_: None,
) -> tuple[list[FittedClassifier], SceneFeatures | None]:
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
        report("reading", 0, 1)
        extractor = FeatureExtractor.fit(encoder, scene, config)
        read = wanted.copy()
        for support in supports:
            read[support.rows, support.cols] = True
        features = extract_features(extractor, encoder, scene, read, config)
        report("reading", 1, 1)
        return [
            fit_kernel_classifier(encoder, extractor, features, support, text, config)
            for support, text, _ in _reported(supports, texts, seeds, report)
        ], features
    report("features", 0, 1)
    statistics = feature_statistics(encoder, scene, config)
    report("features", 1, 1)
    fitted = []
    for support, text, seed in _reported(supports, texts, seeds, report):
        with _one_thread():
            fitted.append(fit_cosine_classifier(encoder, scene, support, text, statistics, config, seed))
    return fitted, None


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


@contextmanager
def _one_thread() -> Iterator[None]:
    """Fitting takes many small steps, in which several threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


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


def classify(
    classifiers: list[FittedClassifier], scene: SceneView, wanted: npt.NDArray[np.bool_], config: FewshotConfig
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
    first = classifiers[0].head
    if isinstance(first, KernelHead):
        return classify_features(classifiers, extract_features(first.extractor, encoder, scene, wanted, config))
    found = np.full((len(classifiers), *wanted.shape), -1, dtype=np.int64)
    for part in read_pixels(encoder, scene.windows, scene.grid, wanted & scene.present, config):
        with torch.no_grad():
            for number, one in enumerate(classifiers):
                found[number, part.rows, part.cols] = one.head(part.features, one.text_CE).argmax(dim=1).cpu().numpy()
    return found


def class_probabilities(
    fitted: FittedClassifier, scene: SceneView, wanted: npt.NDArray[np.bool_], config: FewshotConfig
) -> npt.NDArray[np.float32]:
    """Probability of each class (row, col, class) at the wanted pixels, NaN elsewhere and where no modality has data.

    With ``kernel`` the softmax of the scores at temperature 1 / `SCORE_SHARPNESS`, the one that class priors are
    estimated at; with ``cosine`` the softmax of the scaled cosines. Neither is calibrated: one shot a class leaves
    nothing to calibrate on. They rank pixels by certainty; they are not frequencies of being right.

    Args:
        fitted: the classifier.
        scene: the scene to read.
        wanted: bool (row, col).
        config: the read-out and the size of a batch.
    """
    found = np.full((*wanted.shape, len(fitted.text_CE)), np.nan, dtype=np.float32)
    with torch.no_grad():
        if isinstance(fitted.head, KernelHead):
            features = extract_features(fitted.head.extractor, fitted.encoder, scene, wanted, config)
            rows, cols = np.nonzero(features.valid_HW.cpu().numpy())
            for start in range(0, len(rows), PIXEL_BATCH):
                piece = slice(start, start + PIXEL_BATCH)
                logits_PC = fitted.head.logits(features.pixels[:, piece], fitted.text_CE)
                found[rows[piece], cols[piece]] = torch.softmax(logits_PC, dim=1).cpu().numpy()
        else:
            for part in read_pixels(fitted.encoder, scene.windows, scene.grid, wanted & scene.present, config):
                logits_PC = fitted.head(part.features, fitted.text_CE)
                found[part.rows, part.cols] = torch.softmax(logits_PC, dim=1).cpu().numpy()
    return found


def fit_kernel_classifier(
    encoder: FeatureEncoder,
    extractor: FeatureExtractor,
    features: SceneFeatures,
    support: Support,
    text: ClassTextEncoder,
    config: FewshotConfig,
) -> FittedClassifier:
    """Fits a kernel head to the support, in closed form.

    Args:
        encoder: the one that the features come from; stays as it is.
        extractor: fitted without labels.
        features: the scene's pixels, the support among them.
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
        head = KernelHead.fit(extractor, features.pixels, support_SQK, targets_Q, text_CE)
        head = head.adapted(
            features.pixels, torch.isin(torch.arange(len(text_CE)), targets_Q), text_CE,
            class_priors=config.class_priors == "estimated", class_means=config.discriminant,
        )  # fmt: skip
    return FittedClassifier(encoder, head, text_CE)


def classify_features(classifiers: list[FittedClassifier], features: SceneFeatures) -> npt.NDArray[np.int64]:
    """Class index (classifier, row, col) of the valid pixels, -1 elsewhere.

    Args:
        classifiers: with kernel heads that share one extractor.
        features: of that extractor.
    """
    valid_HW = features.valid_HW.cpu().numpy()
    found = np.full((len(classifiers), *valid_HW.shape), -1, dtype=np.int64)
    for number, one in enumerate(classifiers):
        with torch.no_grad():
            classes = [
                one.head(part_SPK, one.text_CE).argmax(dim=1)
                for part_SPK in torch.split(features.pixels, PIXEL_BATCH, dim=1)
            ]
        found[number, valid_HW] = torch.cat(classes).cpu().numpy()
    return found
