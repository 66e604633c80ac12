"""Makes a classifier and a scene fit each other before the scene is mapped."""

from dataclasses import dataclass, replace

from diffclip_dist.data.modality_statistics import ModalityStatistics
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.band_match import match_modalities, pick_bands
from diffclip_dist.feature_extraction.unit_check import check_units
from diffclip_dist.fewshot.adaptation import adapted_to_scene, is_another_scene, with_prior
from diffclip_dist.fewshot.classifier import Classifier
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.fewshot.open_vocabulary import with_named_classes
from shards.archive.archive import ReadableScene
from shards.errors import BadInput
from shards.nearest import any_you_mean

KNOWER = "the classifier"


@dataclass(frozen=True)
class MatchOptions:
    """What is done where a scene differs from the one that a classifier was fitted in.

    Attributes:
        map_bands: where bands disagree, take the nearest by wavelength, see `match_modalities`; else they are refused.
        trust_units: map a scene whose values seem to come in other units, see `check_units`; else it is refused.
        keep_priors: keep class priors and class means of the classifier's own scene; else those of another scene are
            estimated from its unlabelled pixels, see `adapted_to_scene`. A cosine head has none.
        also: names of more classes, see `with_named_classes`.
    """

    map_bands: bool = False
    trust_units: bool = False
    keep_priors: bool = False
    also: tuple[str, ...] = ()


AS_FITTED = MatchOptions()


def match_scene(
    classifier: Classifier, scene: ReadableScene, options: MatchOptions = AS_FITTED
) -> tuple[Classifier, ReadableScene]:
    """The classifier for a scene, and the scene with the bands that the classifier knows.

    Reads a bounded number of pixels of a scene that is not the classifier's own, see `is_another_scene`.

    Raises:
        BadInput: the scene shares no modality with the classifier, or one has other bands or other units; or classes
            cannot be added.
    """
    config = classifier.config
    known = [ModalitySchema.of(modality) for modality in config.modalities]
    record = scene.record
    matches = match_modalities(known, record, KNOWER, options.map_bands)
    if not matches:
        theirs, ours = [modality.name for modality in record.modalities], [schema.name for schema in known]
        raise BadInput(
            f"scene {record.name}: has the modalities {', '.join(theirs)}, and the classifier knows {', '.join(ours)}: "
            f"none is shared{any_you_mean(theirs, ours)}"
        )
    matched = pick_bands(scene, matches)
    if not options.trust_units:
        statistics = [ModalityStatistics.of(modality, config.scene) for modality in config.modalities]
        check_units(statistics, matched.record, matches, KNOWER)
    fitted = classifier.fitted
    if isinstance(fitted.head, KernelHead) and is_another_scene(config.modalities, matched.record):
        if fitted.prior is not None:
            fitted = with_prior(fitted, fitted.prior.for_scene(matched))
        if not options.keep_priors:
            fitted = adapted_to_scene(fitted, matched, config.modalities, config.fewshot)
    found = replace(classifier, fitted=fitted)
    return with_named_classes(found, options.also, matched) if options.also else found, matched
