"""Stems, class tokens and the modality-shared transformer: the part of the model that is exported after pretraining.

Shapes: B windows, M modalities, N tokens of a window, T wanted ones of these, K visible slots, C bands, D width.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.stem import BandEmbedding, BandPlaces, OwnBands, Stem, WavelengthBands
from diffclip_dist.model.transformer import TimestepEmbedding, Transformer, position_embedding
from shards.errors import BadInput

ANY_SENSOR: Final = "any"  # name of the one input of an encoder that reads every sensor


@dataclass(frozen=True)
class WindowFeatures:
    """The encoder's features of clean windows.

    Attributes:
        class_BMD: the class token of each modality.
        tokens_BMTD: one for each wanted pixel of the window, 0 where the modality has no data.
        valid_BMN: bool, where the modality has data.
    """

    class_BMD: Tensor
    tokens_BMTD: Tensor
    valid_BMN: Tensor


class ModalityInput(nn.Module):
    """The layers before the shared encoder: stem, class token and timestep embedding, of one modality or of all."""

    def __init__(self, bands: BandEmbedding, config: ModelConfig) -> None:
        super().__init__()
        self.stem = Stem(bands, config.width)
        self.class_token_D = nn.Parameter(torch.randn(config.width) * 0.02)
        self.timestep = TimestepEmbedding(config.timestep_width, config.width)

    def forward(self, values_BKC: Tensor, positions_BKD: Tensor, t_B: Tensor, places_CF: Tensor | None) -> Tensor:
        """Tokens (B, 1 + K, D), the class token first; the timestep is added to the class token alone."""
        pixels_BKD, sensor_D = self.stem(values_BKC, places_CF)
        pixels_BKD = pixels_BKD + positions_BKD.to(pixels_BKD.dtype)
        class_B1D = (self.class_token_D + self.timestep(t_B))[:, None]
        if sensor_D is not None:
            class_B1D = class_B1D + sensor_D
        # under autocast the sum is float32, and joined with it all tokens would become float32
        return torch.cat([class_B1D.to(pixels_BKD.dtype), pixels_BKD], dim=1)


class MultimodalEncoder(nn.Module):
    """One transformer for every modality (DiffCLIP, stage 1, modality-shared encoder).

    Each modality is a sequence of its own, or all are one sequence (`ModelConfig.fusion`); the parameters are the same.
    """

    positions_ND: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.config = config
        self.modalities = tuple(modalities)
        if config.stem == "wavelength":
            self.inputs = nn.ModuleDict({ANY_SENSOR: ModalityInput(WavelengthBands(config.width), config)})
        else:
            self.inputs = nn.ModuleDict(
                {schema.key: ModalityInput(OwnBands(schema.bands, config.width), config) for schema in self.modalities}
            )
        self.places = nn.ModuleDict({s.key: BandPlaces(s) for s in self.modalities} if self.any_sensor else {})
        self.transformer = Transformer(config.depth, config.width, config.heads, config.mlp_ratio)
        self.register_buffer("positions_ND", position_embedding(config.window, config.width), persistent=False)

    @property
    def any_sensor(self) -> bool:
        """Whether the encoder can read modalities that it was not trained on."""
        return self.config.stem == "wavelength"

    def for_modalities(self, wanted: Sequence[ModalitySchema]) -> "MultimodalEncoder":
        """This encoder with only the modalities that a scene has; it shares the parameters.

        Raises:
            BadInput: the encoder knows none of them.
        """
        known = {schema.key: schema for schema in (wanted if self.any_sensor else self.modalities)}
        kept = tuple(known[schema.key] for schema in wanted if schema.key in known)
        if not kept:
            raise BadInput(
                f"encoder: expected a modality among {_listed(self.modalities)}, the scene has {_listed(wanted)}"
            )
        part = copy.copy(self)
        part._modules = dict(self._modules)
        if self.any_sensor:
            part.places = nn.ModuleDict({schema.key: BandPlaces(schema) for schema in kept})
        else:
            part.inputs = nn.ModuleDict({schema.key: self.inputs[schema.key] for schema in kept})
        part.modalities = kept
        return part

    def embed(self, schema: ModalitySchema, values_BKC: Tensor, positions_BKD: Tensor, t_B: Tensor) -> Tensor:
        """A modality's tokens (B, 1 + K, D), class token first, as the shared encoder takes them."""
        if not self.any_sensor:
            tokens_BSD: Tensor = self.inputs[schema.key](values_BKC, positions_BKD, t_B, None)
            return tokens_BSD
        shared_BSD: Tensor = self.inputs[ANY_SENSOR](values_BKC, positions_BKD, t_B, self.places[schema.key]())
        return shared_BSD

    def encode(
        self,
        tokens_BSD: Sequence[Tensor],
        present_BS: Sequence[Tensor] | None,
        kept: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Runs the modalities' tokens through the shared transformer, in one call for all of them.

        Args:
            tokens_BSD: a modality's tokens each, class token first, all of one shape.
            present_BS: bool, false for empty slots; ``None`` if there are none, which is faster.
            kept: int64, which tokens of each modality are wanted; ``None`` means all of them.
        """
        joint = self.config.fusion == "joint"
        axis = 1 if joint else 0
        present = None if present_BS is None else torch.cat(list(present_BS), dim=axis)
        if kept is not None and joint:
            kept = torch.cat([number * tokens_BSD[0].shape[1] + kept for number in range(len(tokens_BSD))])
        encoded: Tensor = self.transformer(torch.cat(list(tokens_BSD), dim=axis), present, kept)
        return encoded.chunk(len(tokens_BSD), dim=axis)

    def forward(
        self, windows: Mapping[str, Tensor], valid: Mapping[str, Tensor], wanted_T: Tensor | None = None
    ) -> WindowFeatures:
        """Features of clean windows at t = 0, with every valid token visible.

        Args:
            windows: modality name to standardised values, float32 (B, N, C), 0 where missing. A modality of the
                encoder that is not given counts as wholly missing.
            valid: modality name to bool (B, N).
            wanted_T: int64, the tokens of a window whose features are wanted; ``None`` means all of them.

        Returns:
            Features with modalities in the encoder's own order.
        """
        given = next(iter(valid.values()))
        batch, tokens = given.shape
        t_B = torch.zeros(batch, dtype=torch.int64, device=given.device)
        positions_BND = self.positions_ND.expand(batch, -1, -1)
        sequences, present, valid_BN_of = [], [], []
        for schema in self.modalities:
            valid_BN = valid.get(schema.name, torch.zeros_like(given))
            values_BNC = windows.get(schema.name)
            if values_BNC is None:
                values_BNC = torch.zeros(batch, tokens, schema.bands, device=given.device)
            sequences.append(self.embed(schema, values_BNC, positions_BND, t_B))
            present.append(torch.cat([valid_BN.new_ones(batch, 1), valid_BN], dim=1))
            valid_BN_of.append(valid_BN)
        valid_BMN = torch.stack(valid_BN_of, dim=1)
        kept = None if wanted_T is None else torch.cat([wanted_T.new_zeros(1), wanted_T + 1])  # the class token too
        encoded = torch.stack(self.encode(sequences, None if bool(valid_BMN.all()) else present, kept), dim=1)
        wanted_valid_BMT = valid_BMN if wanted_T is None else valid_BMN[:, :, wanted_T]
        return WindowFeatures(encoded[:, :, 0], encoded[:, :, 1:] * wanted_valid_BMT[..., None], valid_BMN)


def _listed(schemas: Sequence[ModalitySchema]) -> str:
    return ", ".join(f"{schema.name} ({schema.bands} bands)" for schema in schemas)
