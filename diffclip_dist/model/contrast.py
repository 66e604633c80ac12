"""Contrast between two parts of a window, beside mask diffusion.

Two parts of one window mostly show the same thing, and share no pixel. So what the encoder makes of one part is to be
nearer to what it makes of the other than to the parts of other windows (InfoNCE: van den Oord et al. 2018). Noise of
single pixels tells nothing of the other part; so the encoder learns to leave it out.

Shapes: B windows, N tokens of a window, K tokens of a part, S = 1 + K with the class token, C bands, D width, E width
of the compared vectors, A groups of G windows.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.masking import slot_count
from diffclip_dist.model.model_config import ModelConfig

# Chosen on generated scenes
TEMPERATURE: Final = 0.1
COMPARED_WIDTH: Final = 64


def part_size(config: ModelConfig) -> int:
    """K, the tokens of a part: as many as mask diffusion shows, and at most half of a window."""
    return max(min(slot_count(config.tokens, config.mask_ratio), config.tokens // 2), 1)


def draw_parts(scores_BN: Tensor, config: ModelConfig) -> Tensor:
    """int64 (B, 2, K): the tokens of two parts of each window, the same for every modality.

    Args:
        scores_BN: one random score a token.
        config: the model's settings.
    """
    size = part_size(config)
    return scores_BN.argsort(dim=1, stable=True)[:, : 2 * size].reshape(-1, 2, size)


def seen_in_both(valid_BN: Tensor, parts_B2K: Tensor) -> Tensor:
    """bool (B,): whether a modality has data in both parts of a window."""
    valid_B2K = valid_BN[:, None].expand(-1, 2, -1).gather(2, parts_B2K)
    return valid_B2K.any(dim=2).all(dim=1)


class PartContrast(nn.Module):
    """Compares the parts of each window with those of the other windows of its group, modality by modality.

    Groups are consecutive windows of the global batch. So neither the number of workers nor the micro-batch changes
    what a window is compared with.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.group = config.contrast_group
        hidden = 2 * config.width
        self.projector = nn.Sequential(nn.Linear(config.width, hidden), nn.GELU(), nn.Linear(hidden, COMPARED_WIDTH))

    def project(self, encoder: MultimodalEncoder, batch: WindowBatch, parts_B2K: Tensor) -> list[tuple[Tensor, Tensor]]:
        """For each modality the unit vectors (B, E) of the two parts: means over the tokens that have data."""
        t_B = torch.zeros_like(parts_B2K[:, 0, 0])  # clean windows, as a classifier reads them
        projected = []
        for slots_BK in parts_B2K.unbind(dim=1):
            sequences, present = [], []
            for schema in batch.schemas:
                values_BNC = batch.windows[schema.key]
                values_BKC = values_BNC.gather(1, slots_BK[..., None].expand(-1, -1, values_BNC.shape[2]))
                sequences.append(encoder.embed(schema, values_BKC, encoder.positions_ND[slots_BK], t_B))
                filled_BK = batch.valid[schema.key].gather(1, slots_BK)
                present.append(torch.cat([filled_BK.new_ones(len(filled_BK), 1), filled_BK], dim=1))
            encoded = encoder.encode(sequences, None if batch.all_valid else present)
            projected.append(
                [
                    self.projector(_mean(encoded_BSD[:, 1:], present_BS[:, 1:]))
                    for encoded_BSD, present_BS in zip(encoded, present, strict=True)
                ]
            )
        return [
            (F.normalize(one_BE.float(), dim=1), F.normalize(other_BE.float(), dim=1))
            for one_BE, other_BE in zip(*projected, strict=True)
        ]

    def forward(self, projected: list[tuple[Tensor, Tensor]], batch: WindowBatch, parts_B2K: Tensor) -> Tensor:
        """Cross-entropy of finding a part's other part in its group, float32 (M,), summed over windows.

        Windows without data in a part are left out.
        """
        sums = []
        for schema, (one_BE, other_BE) in zip(batch.schemas, projected, strict=True):
            seen_AG = seen_in_both(batch.valid[schema.key], parts_B2K).view(-1, self.group)
            one_AGE, other_AGE = (vectors_BE.view(-1, self.group, COMPARED_WIDTH) for vectors_BE in (one_BE, other_BE))
            cosine_AGG = one_AGE @ other_AGE.transpose(1, 2) / TEMPERATURE
            cosine_AGG = cosine_AGG.masked_fill(~(seen_AG[:, :, None] & seen_AG[:, None, :]), -2.0 / TEMPERATURE)
            own_AG = cosine_AGG.diagonal(dim1=1, dim2=2)
            missed_AG = (cosine_AGG.logsumexp(dim=2) + cosine_AGG.logsumexp(dim=1)) / 2 - own_AG
            sums.append((missed_AG * seen_AG).sum())
        return torch.stack(sums)


def _mean(tokens_BKD: Tensor, filled_BK: Tensor) -> Tensor:
    weight_BK1 = filled_BK[..., None].to(tokens_BKD.dtype)
    return (tokens_BKD * weight_BK1).sum(dim=1) / weight_BK1.sum(dim=1).clamp_min(1)
