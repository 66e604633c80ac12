"""A classifier on disk with all that is needed to map a scene; no pickle, no text model.

FOLDER/config.json and model.safetensors hold the head and the class vectors, FOLDER/encoder/ the encoder, if any.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pydantic
import safetensors
import safetensors.torch
from torch import Tensor

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.band_metric import BandMetric
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder
from diffclip_dist.feature_extraction.encoder_source import BANDS_ONLY, NamedEncoder
from diffclip_dist.feature_extraction.extractor import FeatureExtractor
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.scene_view import encoder_for_pattern
from diffclip_dist.fewshot.calibration import UNCALIBRATED, Calibration
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.kernel_head import KERNEL_WIDTHS, KernelHead
from diffclip_dist.fewshot.names_prior import NamesPrior
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.saved_encoder import (
    ENCODER_FOLDER,
    EncoderConfig,
    Training,
    check_sha256,
    load_encoder,
    read_config,
    save_encoder,
    sha256_of,
)
from diffclip_dist.model.saved_encoder import FORMAT_VERSION as ENCODER_FORMAT_VERSION
from diffclip_dist.words.class_name import ClassName
from diffclip_dist.words.name_classifier import NameClassifier
from shards.archive.manifest import ModalityRecord, SceneRecord
from shards.archive.publish import publish_file
from shards.errors import BadInput

FORMAT_VERSION: Final = 7
# Still read: 6 knew no prior by names, 5 no calibration and did not hold class priors apart, 4 had other names
OLDER_FORMAT_VERSIONS: Final = (4, 5, 6)
OLDER_TENSOR_NAMES: Final = MappingProxyType(
    {"unlike_S": "bilateral_bandwidth_S", "spread_S": "variance_S", "answers_GQE": "dual_coef_GQE"}
)
# What the names of the tensors of a prior by names begin with
NAMES_PREFIX: Final = "names/"
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"


@dataclass(frozen=True)
class MappedClass:
    """A class that a classifier can name.

    Attributes:
        class_id: its value in labels of an archive and in maps in memory, at least 1.
        name: its name.
        colour: as ``#rrggbb``.
        id_shift: class id minus the user's; 1 for all classes of a scene that has a class 0.
    """

    class_id: int
    name: str
    colour: str
    id_shift: int = 0

    @property
    def user_id(self) -> int:
        """The id that the user gave it, which figures and map files show."""
        return self.class_id - self.id_shift


@dataclass(frozen=True)
class SavedNames:
    """What is kept of a prior by names beside its tensors.

    Attributes:
        settings: of the name classifier.
        classes: names and descriptions, in the order of the class vectors.
        trust: see `NamesPrior`.
        weight: see `NamesPrior`.
    """

    settings: Mapping[str, Any]
    classes: tuple[ClassName, ...]
    trust: float
    weight: float


@dataclass(frozen=True)
class ClassifierConfig:
    """What ``config.json`` holds.

    Attributes:
        format_version: of the folder.
        scene: name of the scene of the shots.
        generated: whether that scene is made up.
        shots: labelled pixels a class.
        seed: of the shots and of the head.
        protocol: how the shots were drawn.
        encoder: what the encoder's weights are, as results show it; `BANDS_ONLY` where there is none.
        text: what the class vectors are made from, as results show it.
        classes: in the order of the class vectors.
        modalities: bands and statistics that the scene was standardised with.
        fewshot: read-out and training settings.
        calibration: of the probabilities.
        names: the prior by names; None where there is none.
        weights_sha256: of ``model.safetensors``; empty in memory, and in a folder of an earlier version, which is not
            compared.
    """

    format_version: int
    scene: str
    generated: bool
    shots: int
    seed: int
    protocol: str
    encoder: str
    text: str
    classes: tuple[MappedClass, ...]
    modalities: tuple[ModalityRecord, ...]
    fewshot: FewshotConfig
    calibration: Calibration = UNCALIBRATED
    names: SavedNames | None = None
    weights_sha256: str = ""


def classifier_config(
    record: SceneRecord,
    encoder: NamedEncoder,
    classes: Sequence[MappedClass],
    *,
    shots: int,
    seed: int,
    protocol: str,
    text: str,
    fewshot: FewshotConfig,
    fitted: FittedClassifier,
) -> ClassifierConfig:
    """What is kept of a classifier that was fitted in a scene.

    Args:
        record: the scene.
        encoder: fitted to the scene.
        classes: in the order of the class vectors.
        shots: labelled pixels a class.
        seed: of the shots and of the head.
        protocol: how the shots were drawn.
        text: what the class vectors are made from.
        fewshot: read-out and training settings.
        fitted: the classifier.
    """
    prior = fitted.prior
    known = {schema.name for schema in encoder.encoder.modalities}
    return ClassifierConfig(
        FORMAT_VERSION,
        record.name,
        record.generated,
        shots,
        seed,
        protocol,
        encoder.label,
        text,
        tuple(classes),
        tuple(modality for modality in record.modalities if modality.name in known),
        fewshot,
        fitted.calibration,
        None if prior is None else SavedNames(prior.names.settings(), prior.classes, prior.trust, prior.weight),
    )


@dataclass(frozen=True)
class Classifier:
    """A classifier ready to map scenes."""

    config: ClassifierConfig
    fitted: FittedClassifier


def save_classifier(folder: Path, classifier: Classifier, encoder_training: Training) -> None:
    """Writes a classifier; its configuration comes last, so that a folder without it is not a classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    fitted = classifier.fitted
    encoder = fitted.encoder
    if isinstance(encoder, MultimodalEncoder):
        encoder_config = EncoderConfig(ENCODER_FORMAT_VERSION, encoder.config, encoder.modalities, encoder_training)
        save_encoder(folder / ENCODER_FOLDER, encoder.state_dict(), encoder_config)
    weights = {name: tensor.detach().contiguous() for name, tensor in fitted.head.state_dict().items()}
    for part in fitted.by_pattern:
        prefix = _pattern_prefix(part.modalities)
        weights |= {prefix + name: tensor.detach().contiguous() for name, tensor in part.head.state_dict().items()}
    if fitted.prior is not None:
        weights |= {NAMES_PREFIX + name: tensor.contiguous() for name, tensor in fitted.prior.tensors().items()}
    partial_weights = folder / f".{WEIGHTS_FILE}.partial"
    safetensors.torch.save_file({**weights, "text_CE": fitted.text_CE.contiguous()}, partial_weights)
    config = replace(classifier.config, weights_sha256=sha256_of(partial_weights))
    publish_file(partial_weights, folder / WEIGHTS_FILE)
    partial = folder / f".{CONFIG_FILE}.partial"
    # pydantic writes a missing value of NaN as null, for JSON knows no NaN
    partial.write_bytes(pydantic.TypeAdapter(ClassifierConfig).dump_json(config, indent=2) + b"\n")
    publish_file(partial, folder / CONFIG_FILE)


def load_classifier(folder: Path) -> Classifier:
    """Reads a classifier.

    Raises:
        BadInput: the folder holds no classifier, or its files do not fit each other.
    """
    file = folder / CONFIG_FILE
    try:
        content = json.loads(file.read_bytes())
        older = isinstance(content, dict) and content.get("format_version") in OLDER_FORMAT_VERSIONS
        if older:
            content = _upgraded_config(content, file)
        config = pydantic.TypeAdapter(ClassifierConfig).validate_json(json.dumps(content))
    except OSError as error:
        raise BadInput(
            f"{folder}: expected a classifier's {CONFIG_FILE}, as fewshot.py writes it: "
            f"{error.strerror}{_classifiers_inside(folder)}"
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{file}: not JSON: {error}") from None
    except pydantic.ValidationError as error:
        if _is_encoder(folder):
            raise BadInput(
                f"{folder}: an encoder, expected a classifier; fewshot.py --encoder {folder} --out OUT makes one in "
                "OUT/model-5shot"
            ) from None
        first = error.errors()[0]
        raise BadInput(f"{file}: {'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}") from None
    if config.format_version != FORMAT_VERSION:
        raise BadInput(f"{file}: format_version: expected {FORMAT_VERSION}, found {config.format_version}")
    encoder: FeatureEncoder = (
        BandsOnly([ModalitySchema.of(modality) for modality in config.modalities])
        if config.encoder == BANDS_ONLY
        else load_encoder(folder / ENCODER_FOLDER)
    )
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        check_sha256(folder / WEIGHTS_FILE, config.weights_sha256)
        if older:
            weights = {_upgraded_tensor_name(name): tensor for name, tensor in weights.items()}
        text_CE = weights.pop("text_CE")
        prior = _taken_prior(weights, config.names)
        patterns = _taken_patterns(weights)
        by_pattern = tuple(_pattern_classifier(encoder, *pattern, text_CE, prior) for pattern in patterns.items())
        head = _kernel_head(weights) if config.fewshot.head == "kernel" else _cosine_head(weights, text_CE.shape[1])
    except BadInput:
        raise
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, safetensors.SafetensorError) as error:
        raise BadInput(f"{folder / WEIGHTS_FILE}: not a classifier's weights: {error}") from None
    fits = len(text_CE) == len(config.classes) and (prior is None or len(prior.count_C) == len(text_CE))
    fits = fits and _modalities(head) == len(encoder.modalities)
    if isinstance(head, KernelHead):
        ways = len(head.extractor.vectors_of_sets(config.fewshot))
        fits = fits and len(head.support_SQK) == ways and len(head.weight_G) == ways * len(KERNEL_WIDTHS)
        apart = [of_classes for of_classes in (head.prior_C, head.seen_C) if of_classes is not None]
        fits = fits and all(of_classes.shape == (len(config.classes),) for of_classes in apart)
    if not fits:
        raise BadInput(f"{folder / WEIGHTS_FILE}: weights do not fit {CONFIG_FILE}")
    fitted = FittedClassifier(encoder, head.eval(), text_CE, by_pattern, config.calibration, prior)
    return Classifier(replace(config, weights_sha256=""), fitted)


def _pattern_prefix(modalities: Sequence[str]) -> str:
    """What the names of a pattern's tensors begin with, such as ``pattern/hsi,lidar/``."""
    return f"pattern/{','.join(modalities)}/"


def _taken_prior(weights: dict[str, Tensor], saved: SavedNames | None) -> NamesPrior | None:
    """Takes the tensors of the prior by names out of a classifier's."""
    if saved is None:
        return None
    taken = [name for name in weights if name.startswith(NAMES_PREFIX)]
    own = {name.removeprefix(NAMES_PREFIX): weights.pop(name) for name in taken}
    said_CC, count_C, right_C = (own.pop(name) for name in ("said_CC", "count_C", "right_C"))
    names = NameClassifier.from_settings(saved.settings)
    names.load_state_dict({name.removeprefix("classifier."): tensor for name, tensor in own.items()})
    return NamesPrior(names, saved.classes, said_CC, saved.trust, saved.weight, count_C, right_C)


def _taken_patterns(weights: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Takes the patterns' tensors out of a classifier's: the listed modalities of each pattern to its tensors."""
    patterns: dict[str, dict[str, Tensor]] = {}
    for name in sorted(weights):
        if name.startswith("pattern/"):
            _, modalities, own = name.split("/", 2)
            patterns.setdefault(modalities, {})[own] = weights.pop(name)
    return patterns


def _pattern_classifier(
    encoder: FeatureEncoder, listed: str, weights: Mapping[str, Tensor], text_CE: Tensor, prior: NamesPrior | None
) -> FittedClassifier:
    """The classifier of pixels that have some of the encoder's modalities alone."""
    names = listed.split(",")
    known = {schema.name for schema in encoder.modalities}
    if not set(names) < known:
        raise ValueError(f"a pattern of modalities: expected some of {', '.join(sorted(known))}, found {listed}")
    head = _kernel_head(weights).eval()
    part = encoder_for_pattern(encoder, names)
    if _modalities(head) != len(part.modalities):
        raise ValueError(f"the pattern {listed}: its weights are for {_modalities(head)} modalities")
    return FittedClassifier(part, head, text_CE, prior=prior)


def read_encoder_training(folder: Path) -> Training:
    """Where the weights of a saved classifier's encoder come from."""
    if not (folder / ENCODER_FOLDER).is_dir():
        return Training(0, 0, "", (), ())
    return read_config(folder / ENCODER_FOLDER).training


def _upgraded_config(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The configuration of a folder of the older format, as this one has it."""
    fewshot = dict(content.get("fewshot", {}))
    if fewshot.pop("spreading", False):
        raise BadInput(f"{file}: fewshot.spreading: expected false, for spreading was removed; fit the classifier anew")
    if "class_shares" in fewshot:
        fewshot["class_priors"] = fewshot.pop("class_shares")
    return {**content, "format_version": FORMAT_VERSION, "fewshot": fewshot}


def _upgraded_tensor_name(name: str) -> str:
    """The name of a tensor of the older format, as this one has it."""
    owner, dot, own = name.rpartition(".")
    return owner.replace("describer", "extractor") + dot + OLDER_TENSOR_NAMES.get(own, own)


def _classifiers_inside(folder: Path) -> str:
    """The end of a message on a folder that is no classifier: those that it holds, as a study's folder does."""
    inside = [str(file.parent) for file in sorted(folder.glob(f"*/{CONFIG_FILE}")) if not _is_encoder(file.parent)]
    return f"; did you mean {' or '.join(inside)}?" if inside else ""


def _is_encoder(folder: Path) -> bool:
    try:
        read_config(folder)
    except BadInput:
        return False
    return True


def _cosine_head(weights: Mapping[str, Tensor], text_width: int) -> CosineHead:
    head = CosineHead(FeatureStatistics(weights["mean_MF"], weights["deviation_MF"]), text_width)
    head.load_state_dict(weights)
    return head


def _kernel_head(weights: Mapping[str, Tensor]) -> KernelHead:
    own = {name.removeprefix("extractor."): tensor for name, tensor in weights.items()}
    extractor = FeatureExtractor(
        FeatureStatistics(own["mean_MF"], own["deviation_MF"]),
        BandMetric(own["band_mean_C"], own["band_projection_CK"]),
        own["centre_J"], own["axes_AJK"], own["bilateral_bandwidth_S"],
    )  # fmt: skip
    head = KernelHead(
        extractor,
        own["support_SQK"],
        own["variance_S"],
        own["weight_G"],
        own["dual_coef_GQE"],
        own["direction_KE"],
        own["offset_E"],
        own.get("prior_C"),
        own.get("seen_C"),
        own.get("metric_direction_KE"),
    )
    head.load_state_dict(weights)  # refuses what is not of a head
    return head


def _modalities(head: CosineHead | KernelHead) -> int:
    return len((head.extractor if isinstance(head, KernelHead) else head).mean_MF)
