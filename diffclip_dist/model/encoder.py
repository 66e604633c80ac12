"""Stems, class tokens and the modality-shared transformer: the part of the model that outlives pretraining.

Shapes: B windows, M modalities, N tokens of a window, K visible slots, C bands, D width.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffclip_dist.model.config import ModelConfig
from diffclip_dist.model.transformer import TimestepEmbedding, Transformer, position_embedding
from diffclip_dist.stream.schema import ModalitySchema
from shards.errors import BadInput


@dataclass(frozen=True)
class WindowFeatures:
    """What the encoder says of clean windows.

    Attributes:
        class_BMD: the class token of each modality.
        tokens_BMND: each pixel of the window with its context, 0 where the modality has no data.
        valid_BMN: bool, where the modality has data.
    """

    class_BMD: Tensor
    tokens_BMND: Tensor
    valid_BMN: Tensor


class Stem(nn.Module):
    """Takes a pixel's bands to the model's width: two 1x1 layers with a normalisation that knows no batch."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.bands = nn.Linear(bands, width)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width))

    def forward(self, values_BKC: Tensor) -> Tensor:
        tokens_BKD: Tensor = self.mix(self.bands(values_BKC.to(self.bands.weight.dtype)))
        return tokens_BKD


class ModalityInput(nn.Module):
    """What belongs to one modality before the shared encoder: stem, class token and timestep embedding."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        super().__init__()
        self.stem = Stem(bands, config.width)
        self.class_token_D = nn.Parameter(torch.randn(config.width) * 0.02)
        self.timestep = TimestepEmbedding(config.timestep_width, config.width)

    def forward(self, values_BKC: Tensor, positions_BKD: Tensor, t_B: Tensor) -> Tensor:
        """Tokens (B, 1 + K, D), the class token first; the timestep is added to the class token alone."""
        pixels_BKD = self.stem(values_BKC)
        pixels_BKD = pixels_BKD + positions_BKD.to(pixels_BKD.dtype)
        class_B1D = (self.class_token_D + self.timestep(t_B))[:, None]
        return torch.cat([class_B1D, pixels_BKD], dim=1)


class MultimodalEncoder(nn.Module):
    """One transformer for every modality (DiffCLIP, stage 1, modality-shared encoder).

    Modalities never attend to each other here: each is a sequence of its own through the same parameters.
    """

    positions_ND: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.config = config
        self.modalities = tuple(modalities)
        self.inputs = nn.ModuleDict({schema.key: ModalityInput(schema.bands, config) for schema in self.modalities})
        self.transformer = Transformer(config.depth, config.width, config.heads, config.mlp_ratio)
        self.register_buffer("positions_ND", position_embedding(config.window, config.width), persistent=False)

    def for_modalities(self, wanted: Sequence[ModalitySchema]) -> "MultimodalEncoder":
        """This encoder with only those of its modalities that a scene has; parameters are shared, not copied.

        Raises:
            BadInput: the encoder knows none of them.
        """
        known = {schema.key: schema for schema in self.modalities}
        kept = tuple(known[schema.key] for schema in wanted if schema.key in known)
        if not kept:
            raise BadInput(
                f"encoder: expected a modality among {_listed(self.modalities)}, the scene has {_listed(wanted)}"
            )
        part = copy.copy(self)
        part._modules = {**self._modules, "inputs": nn.ModuleDict({s.key: self.inputs[s.key] for s in kept})}
        part.modalities = kept
        return part

    def encode(self, tokens_BSD: Sequence[Tensor], present_BS: Sequence[Tensor] | None) -> tuple[Tensor, ...]:
        """Runs each modality's tokens through the shared transformer, in one call for all of them.

        Args:
            tokens_BSD: a modality's tokens each, class token first, all of one shape.
            present_BS: bool, tokens that exist; ``None`` where all do, which is faster.
        """
        present = None if present_BS is None else torch.cat(list(present_BS))
        encoded: Tensor = self.transformer(torch.cat(list(tokens_BSD)), present)
        return encoded.chunk(len(tokens_BSD))

    def forward(self, windows: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> WindowFeatures:
        """Features of clean windows at t = 0, with every valid token visible.

        Args:
            windows: modality name to standardised values, float32 (B, N, C), 0 where missing. A modality of the
                encoder that is not given counts as wholly missing.
            valid: modality name to bool (B, N).

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
            sequences.append(self.inputs[schema.key](values_BNC, positions_BND, t_B))
            present.append(torch.cat([valid_BN.new_ones(batch, 1), valid_BN], dim=1))
            valid_BN_of.append(valid_BN)
        valid_BMN = torch.stack(valid_BN_of, dim=1)
        encoded = torch.stack(self.encode(sequences, None if bool(valid_BMN.all()) else present), dim=1)
        tokens_BMND = encoded[:, :, 1:] * valid_BMN[..., None]
        return WindowFeatures(encoded[:, :, 0], tokens_BMND, valid_BMN)


def _listed(schemas: Sequence[ModalitySchema]) -> str:
    return ", ".join(f"{schema.name} ({schema.bands} bands)" for schema in schemas)
