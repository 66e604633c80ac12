"""Mask diffusion over multimodal windows (DiffCLIP, stage 1): the model that pretraining trains.

Shapes: B windows, M modalities, N tokens of a window, K visible slots, C bands, D width, E
the decoders' width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffclip_dist import randomness
from diffclip_dist.model.config import ModelConfig
from diffclip_dist.model.decoder import ModalityDecoder
from diffclip_dist.model.diffusion import ForwardDiffusion
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.masking import TokenMask, draw_mask, visible_counts
from diffclip_dist.model.transformer import position_embedding
from diffclip_dist.stream.batches import WindowBatch
from diffclip_dist.stream.schema import ModalitySchema

# what a sample's key is folded with, so that its draws are independent of each other
_TIMESTEP, _NOISE, _MASK = 1, 2, 3


@dataclass(frozen=True)
class Draws:
    """Every random draw of a batch.

    Attributes:
        t_B: int64 timestep, shared by a sample's modalities.
        noise: modality key to standard normal noise (B, N, C), independent per modality.
        masks: modality key to its token mask, independent per modality.
    """

    t_B: Tensor
    noise: Mapping[str, Tensor]
    masks: Mapping[str, TokenMask]


def draw(batch: WindowBatch, config: ModelConfig, seed: int, step: int) -> Draws:
    """Draws timestep, noise and masks of a batch: a function of seed, step and each sample's place in the global batch.

    Args:
        batch: any part of the step's global batch.
        config: the model's settings.
        seed: of the run.
        step: of the run, counted from 0.
    """
    keys_B = randomness.keys(batch.positions_B, seed, step)
    noise, masks = {}, {}
    for schema in batch.schemas:
        own_position = randomness.fold(*schema.key.encode())
        tokens = batch.valid[schema.key].shape[1]
        noise_keys_B = randomness.keys(keys_B, _NOISE, own_position)
        noise[schema.key] = randomness.normal(noise_keys_B, tokens * schema.bands).view(-1, tokens, schema.bands)
        scores_BN = randomness.uniform(randomness.keys(keys_B, _MASK, own_position), tokens)
        masks[schema.key] = draw_mask(scores_BN, batch.valid[schema.key], config.mask_ratio)
    t_B = randomness.integers(randomness.keys(keys_B, _TIMESTEP), config.diffusion.timesteps)
    return Draws(t_B, noise, masks)


class MaskDiffusion(nn.Module):
    """Encoder, decoders and the loss between them."""

    decoder_positions_NE: Tensor

    def __init__(self, config: ModelConfig, modalities: Sequence[ModalitySchema]) -> None:
        super().__init__()
        self.config = config
        self.encoder = MultimodalEncoder(config, modalities)
        self.decoders = nn.ModuleDict({schema.key: ModalityDecoder(schema.bands, config) for schema in modalities})
        self.register_buffer(
            "decoder_positions_NE", position_embedding(config.window, config.width_in_decoder), persistent=False
        )
        self.diffusion = ForwardDiffusion(config.diffusion)

    def predict(self, batch: WindowBatch, draws: Draws) -> dict[str, Tensor]:
        """Predicts clean values (B, N, C) of each modality from the visible tokens of the noised windows."""
        sequences, present = [], []
        for schema in batch.schemas:
            mask = draws.masks[schema.key]
            noised_BNC = self.diffusion(batch.windows[schema.key], draws.t_B, draws.noise[schema.key])
            visible_BKC = gather_tokens(noised_BNC, mask.slots_BK)
            positions_BKD = self.encoder.positions_ND[mask.slots_BK]
            sequences.append(self.encoder.inputs[schema.key](visible_BKC, positions_BKD, draws.t_B))
            present.append(torch.cat([mask.filled_BK.new_ones(len(draws.t_B), 1), mask.filled_BK], dim=1))
        encoded = self.encoder.encode(sequences, None if batch.dense else present)
        return {
            schema.key: self.decoders[schema.key](encoded_BSD, draws.masks[schema.key], self.decoder_positions_NE)
            for schema, encoded_BSD in zip(batch.schemas, encoded, strict=True)
        }

    def forward(self, batch: WindowBatch, draws: Draws) -> Tensor:
        """Squared errors summed over tokens, float32 (2, M): visible, then masked; the target is x_0.

        Each token counts with its mean over bands. Nothing is normalised yet, so that the sums of micro-batches and
        ranks add up.
        """
        predicted = self.predict(batch, draws)
        visible, masked = [], []
        for schema in batch.schemas:
            error_BNC = predicted[schema.key].to(torch.float32) - batch.windows[schema.key]
            error_BN = error_BNC.square().mean(dim=2)
            mask = draws.masks[schema.key]
            visible.append((error_BN * mask.visible_BN).sum())
            masked.append((error_BN * mask.masked_BN).sum())
        return torch.stack([torch.stack(visible), torch.stack(masked)])


def gather_tokens(values_BNC: Tensor, slots_BK: Tensor) -> Tensor:
    """The values (B, K, C) behind the visible slots."""
    return values_BNC.gather(1, slots_BK[..., None].expand(-1, -1, values_BNC.shape[2]))


def token_counts(batch: WindowBatch, config: ModelConfig) -> Tensor:
    """int64 (2, M): visible and masked tokens of a batch per modality, what its loss sums are divided by.

    They follow from the valid tokens alone: a mask's size does not depend on the draw.
    """
    valid_MB = torch.stack([batch.valid[schema.key].sum(dim=1) for schema in batch.schemas])
    visible_MB = visible_counts(valid_MB, config.mask_ratio)
    return torch.stack([visible_MB.sum(dim=1), (valid_MB - visible_MB).sum(dim=1)])


def loss_terms(sums_2M: Tensor, counts_2M: Tensor) -> Tensor:
    """Mean squared error (2, M) over visible and masked tokens, given the sums of any part of the global batch.

    Args:
        sums_2M: from `MaskDiffusion`.
        counts_2M: token counts of the whole global batch, so that the parts' terms add up to its terms.
    """
    return sums_2M / counts_2M.clamp_min(1).to(sums_2M.dtype)


def weighted_loss(terms_2M: Tensor, config: ModelConfig) -> Tensor:
    """Sum over modalities of L_visible + 0.1 L_masked at the published weights (DiffCLIP, stage 1, loss)."""
    visible_M, masked_M = terms_2M.unbind()
    return config.visible_weight * visible_M.sum() + config.masked_weight * masked_M.sum()
