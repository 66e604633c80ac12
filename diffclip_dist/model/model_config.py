"""The model's settings."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from diffclip_dist.model.diffusion_config import DiffusionConfig
from shards.errors import BadInput

Fusion = Literal["separate", "joint"]
StemKind = Literal["bands", "wavelength"]


@dataclass(frozen=True)
class ModelConfig:
    """The mask-diffusion model (DiffCLIP, stage 1). Two cores pretrain the default model in minutes.

    The preset ``published`` is the paper's model.

    Attributes:
        window: side of a window in pixels, odd; each pixel is a token.
        width: D, a multiple of 4 and of ``heads``.
        depth: blocks of the modality-shared encoder.
        heads: attention heads of encoder and decoders.
        mlp_ratio: hidden width of a block's MLP over its width.
        decoder_depth: blocks of each modality's decoder.
        decoder_width: D of the decoders, a multiple of 4 and of ``heads``; ``None`` is the encoder's.
        timestep_width: width of the timestep's sinusoid, even.
        mask_ratio: share of a window's valid tokens that is hidden from the encoder, in [0, 1).
        modality_dropout: probability that a window hides one of its modalities whole, in [0, 1); its tokens are
            then all masked, and a window of one modality keeps it.
        fusion: ``separate``, each modality a sequence of its own through the shared encoder; or ``joint``, all of a
            window's modalities one sequence, and a decoder sees at its masked tokens what the encoder made of the
            other modalities there (as in MultiMAE, Bachmann et al. 2022, without its cross-attention).
        stem: ``bands``, a layer of its own for each modality's bands; or ``wavelength``, one for every sensor, with
            weights made from each band's wavelength (DOFA, Xiong et al. 2024), or from its index where unknown.
        visible_weight: weight of the loss over visible tokens.
        masked_weight: weight of the loss over masked tokens; where both are 0, nothing is reconstructed, and the model
            has no decoders.
        contrast_weight: weight of the contrast between two parts of a window that share no pixel, 0 or more, see
            `model.contrast`; 0 leaves it out.
        contrast_group: consecutive windows of a batch that a window is compared with, at least 2; a worker's share of
            the batch, and its micro-batch, are multiples of it.
        diffusion: the noise schedule.
    """

    window: int = 5
    width: int = 128
    depth: int = 4
    heads: int = 8
    mlp_ratio: float = 2.0
    decoder_depth: int = 1
    decoder_width: int | None = None
    timestep_width: int = 256
    mask_ratio: float = 0.7
    modality_dropout: float = 0.0
    fusion: Fusion = "separate"
    stem: StemKind = "bands"
    visible_weight: float = 1.0
    masked_weight: float = 1.0
    contrast_weight: float = 0.0
    contrast_group: int = 64
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)

    def __post_init__(self) -> None:
        if self.window < 1 or self.window % 2 == 0:
            raise BadInput(f"model.window: expected an odd number of pixels, found {self.window}")
        for name in ("depth", "decoder_depth", "heads"):
            if getattr(self, name) < 1:
                raise BadInput(f"model.{name}: expected at least 1, found {getattr(self, name)}")
        for name, width in (("width", self.width), ("decoder_width", self.width_in_decoder)):
            if width < 4 or width % 4 or width % self.heads:
                raise BadInput(
                    f"model.{name}: expected a multiple of 4 and of model.heads ({self.heads}), found {width}"
                )
        if self.mlp_ratio <= 0.0:
            raise BadInput(f"model.mlp_ratio: expected more than 0, found {self.mlp_ratio}")
        if self.timestep_width < 2 or self.timestep_width % 2:
            raise BadInput(f"model.timestep_width: expected an even number, found {self.timestep_width}")
        if not 0.0 <= self.mask_ratio < 1.0:
            raise BadInput(f"model.mask_ratio: expected 0 or more and below 1, found {self.mask_ratio}")
        if not 0.0 <= self.modality_dropout < 1.0:
            raise BadInput(f"model.modality_dropout: expected 0 or more and below 1, found {self.modality_dropout}")
        for name, kinds in (("fusion", Fusion), ("stem", StemKind)):
            if getattr(self, name) not in get_args(kinds):
                raise BadInput(f"model.{name}: expected {' or '.join(get_args(kinds))}, found {getattr(self, name)}")
        weights = self.visible_weight, self.masked_weight, self.contrast_weight
        if min(weights) < 0.0 or sum(weights) == 0.0:
            raise BadInput(
                "model.visible_weight, model.masked_weight, model.contrast_weight: expected no negative weight and one "
                f"above 0, found {', '.join(map(str, weights))}"
            )
        if self.contrast_weight > 0.0 and self.window == 1:
            raise BadInput("model.contrast_weight: expected a window of more than one pixel, found model.window=1")
        if self.contrast_group < 2:
            raise BadInput(f"model.contrast_group: expected at least 2, found {self.contrast_group}")

    @property
    def reconstructs(self) -> bool:
        """Whether windows are reconstructed (mask diffusion)."""
        return self.visible_weight + self.masked_weight > 0.0

    @property
    def width_in_decoder(self) -> int:
        """D of the decoders."""
        return self.width if self.decoder_width is None else self.decoder_width

    @property
    def tokens(self) -> int:
        """N, the tokens of a window."""
        return self.window**2
