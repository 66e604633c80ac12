"""The settings of few-shot classification."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, get_args

from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from shards.errors import BadInput
from shards.nearest import did_you_mean

HeadKind = Literal["cosine", "kernel"]
ClassPriors = Literal["estimated", "equal"]


@dataclass(frozen=True)
class FewshotConfig(FeatureConfig):
    """How features are extracted and a classifier is fitted.

    Attributes:
        head: ``cosine`` trains a projection to the text (published); ``kernel`` solves for it in closed form, from
            features and bands.
        views: windows of a labelled pixel in training, at least 1: the one it is read from, then others rotated,
            mirrored and shifted by up to half a stride.
        steps: optimisation steps; the last one is the model, so that no label chooses it.
        learning_rate: of projection, scale and text.
        weight_decay: of projection and text.
        modality_dropout: probability that a view hides one modality, in [0, 1).
        tune_encoder: whether the encoder is trained on the shots too (published) or stays as pretrained.
        encoder_learning_rate: of the encoder where it is trained.
        class_priors: ``equal``: ``kernel`` takes all classes for equally frequent. ``estimated``: it estimates their
            frequencies from the scene's unlabelled pixels; better for OA where they differ, somewhat worse for AA.
        discriminant: whether ``kernel`` also estimates the class means from the scene's unlabelled pixels; the fewer
            the shots, the more it helps.
    """

    head: HeadKind = "kernel"
    views: int = 8
    steps: int = 50
    learning_rate: float = 3e-4
    weight_decay: float = 0.01
    modality_dropout: float = 0.1
    tune_encoder: bool = False
    encoder_learning_rate: float = 1e-4
    class_priors: ClassPriors = "estimated"
    discriminant: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, kinds in (("head", HeadKind), ("class_priors", ClassPriors)):
            if getattr(self, name) not in get_args(kinds):
                found, known = getattr(self, name), get_args(kinds)
                meant = did_you_mean(str(found), known)
                raise BadInput(f"fewshot.{name}: expected {', '.join(known)}, found {found}{meant}")
        if self.head == "kernel" and self.tune_encoder:
            raise BadInput(
                "fewshot.head: expected cosine with tune_encoder, found kernel, which takes no steps to learn by"
            )
        for name in ("views", "steps"):
            if getattr(self, name) < 1:
                raise BadInput(f"fewshot.{name}: expected at least 1, found {getattr(self, name)}")
        for name in ("learning_rate", "encoder_learning_rate"):
            if getattr(self, name) <= 0.0:
                raise BadInput(f"fewshot.{name}: expected more than 0, found {getattr(self, name)}")
        if self.weight_decay < 0.0:
            raise BadInput(f"fewshot.weight_decay: expected 0 or more, found {self.weight_decay}")
        if not 0.0 <= self.modality_dropout < 1.0:
            raise BadInput(f"fewshot.modality_dropout: expected 0 or more and below 1, found {self.modality_dropout}")

    @property
    def smoothing_reach(self) -> int:
        """Pixels on each side of a pixel that its class depends on through smoothing; only ``kernel`` smooths."""
        return super().smoothing_reach if self.head == "kernel" else 0


FEWSHOT_PRESETS: Final[Mapping[str, FewshotConfig]] = MappingProxyType(
    {
        "default": FewshotConfig(),
        # DiffCLIP, stage 2: all shots fit one batch, so that a step is an epoch
        "published": FewshotConfig(
            readout="class", head="cosine", stride=1, steps=150, learning_rate=1e-4, weight_decay=0.0,
            modality_dropout=0.0, tune_encoder=True, encoder_learning_rate=1e-4,
        ),
    }
)  # fmt: skip
