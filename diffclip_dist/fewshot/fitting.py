"""Fits classifiers to the shots of one scene: with the head that the configuration says."""

from collections.abc import Callable, Sequence

from diffclip_dist.feature_extraction.blocks import Wanted, all_pixels
from diffclip_dist.feature_extraction.scene_reader import SceneReader
from diffclip_dist.fewshot.class_text import ClassTextEncoder
from diffclip_dist.fewshot.cosine_fitting import fit_cosine_classifiers
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_fitting import fit_kernel_classifiers
from diffclip_dist.fewshot.names_prior import ToldByName
from diffclip_dist.fewshot.pattern_features import PatternFeatures
from diffclip_dist.fewshot.support import Support


def fit_classifiers(
    scene: SceneReader,
    supports: Sequence[Support],
    texts: Sequence[ClassTextEncoder],
    seeds: Sequence[int],
    config: FewshotConfig,
    wanted: Wanted = all_pixels,
    report: Callable[[str, int, int], None] = lambda *_: None,
    told: ToldByName | None = None,
) -> tuple[list[FittedClassifier], PatternFeatures | None]:
    """Fits a classifier to each of several supports in one scene.

    Args:
        scene: of the supports, read for an encoder that knows its modalities and no others.
        supports: at least one pixel each; with kernel heads and `told`, one may be without any.
        texts: the class texts of each; those that can learn do so in place.
        seeds: of each, for the views of a cosine head.
        config: the head, and how it is fitted.
        wanted: in a scene that is read at once, pixels whose features are extracted besides the supports' for kernel
            heads. They stand for the unlabelled scene.
        report: called with a phase, steps done and steps in all.
        told: tells classes by their names, as a prior of kernel heads; None for no such prior.

    Returns:
        The classifiers; for kernel heads in a scene that is read at once also the features that they share.

    Raises:
        BadInput: a support is too large for a kernel head.
    """
    if config.head == "kernel":
        return fit_kernel_classifiers(scene, supports, texts, config, wanted, report, told)
    return fit_cosine_classifiers(scene, supports, texts, seeds, config, report), None
