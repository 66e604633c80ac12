"""Fits a cosine head, and the encoder if asked, to the shots alone; the last step is the model.

Shapes: P pixels, M modalities, F read-out width.
"""

import copy
from collections.abc import Callable, Sequence

import torch

from diffclip_dist.feature_extraction.bands_only import FeatureEncoder
from diffclip_dist.feature_extraction.one_thread import one_thread
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.reading import read_view, read_view_in_batches
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.feature_extraction.scene_sample import SceneSample
from diffclip_dist.feature_extraction.scene_view import SceneView, read_sample
from diffclip_dist.feature_extraction.views import View, plain_view, training_view
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.loss import alignment_loss
from diffclip_dist.fewshot.support import Support, reported


def fit_cosine_classifiers(
    scene: SceneReader,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    seeds: Sequence[int],
    config: FewshotConfig,
    report: Callable[[str, int, int], None],
) -> list[FittedClassifier]:
    """A classifier with a cosine head for each support, see `fit_classifiers`."""
    report("features", 0, 1)
    sample = scene.sample(scene.survey.names)
    statistics = feature_statistics(scene.encoder, sample, config)
    report("features", 1, 1)
    fitted = []
    for support, text, seed in reported(supports, texts, seeds, report):
        with one_thread():  # many small steps, in which several threads would mostly wait for each other
            view, rows, cols = scene.around(support.rows, support.cols)
            moved = Support(rows, cols, support.targets)
            fitted.append(fit_cosine_classifier(scene.encoder, view, moved, text, statistics, config, seed))
    return fitted


def feature_statistics(encoder: FeatureEncoder, sample: SceneSample, config: FewshotConfig) -> FeatureStatistics:
    """Mean and deviation of the features over pixels of the scene; no label is needed."""
    among = sample.view.complete_among(sample.pixels)
    return FeatureStatistics.of(read_sample(encoder, sample.view, among, config).features)


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
    device = statistics.mean_MF.device
    text.to(device)
    targets_P = torch.from_numpy(support.targets).to(device)
    first = read_view_in_batches(encoder, _view(scene, support, seed, 0, config), config)
    head = CosineHead(statistics, text.width).to(device)
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
