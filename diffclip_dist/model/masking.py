"""Which tokens of a window the encoder sees (DiffCLIP, stage 1, masking).

Shapes: B samples, N tokens of a window, K visible slots.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

_ROUNDING: Final = 1e-9  # 10 tokens at ratio 0.7 leave 3, whatever the last bit of 1 - 0.7


@dataclass(frozen=True)
class TokenMask:
    """A modality's split of its tokens into visible, masked and missing.

    Attributes:
        slots_BK: int64, token index behind each visible slot, in ascending order within a sample.
        filled_BK: bool, false for a slot left empty because the window has fewer valid tokens.
        visible_BN: bool, the same split by token.
        masked_BN: bool, valid tokens that the encoder does not see; missing tokens are neither.
    """

    slots_BK: Tensor
    filled_BK: Tensor
    visible_BN: Tensor
    masked_BN: Tensor


def visible_counts(valid_counts: Tensor, mask_ratio: float) -> Tensor:
    """How many of a window's valid tokens stay visible: 36 of 121 at ratio 0.7; at least one if any is valid.

    Args:
        valid_counts: int64, any shape.
        mask_ratio: share of the valid tokens that is hidden, in [0, 1).
    """
    visible = (valid_counts.to(torch.float64) * (1.0 - mask_ratio) + _ROUNDING).to(torch.int64)
    return visible.clamp_min(1).minimum(valid_counts)


def slot_count(tokens: int, mask_ratio: float) -> int:
    """K, the visible slots of a window of so many valid tokens: 36 of 121 at ratio 0.7."""
    return min(max(int(tokens * (1.0 - mask_ratio) + _ROUNDING), 1), tokens)


def draw_mask(scores_BN: Tensor, valid_BN: Tensor, mask_ratio: float, hidden_B: Tensor) -> TokenMask:
    """Hides a fixed share of each window's valid tokens, those with the highest scores.

    Args:
        scores_BN: float32 on [0, 1), one random score a token.
        valid_BN: bool, false where the modality has no data; such a token is never visible and never a target.
        mask_ratio: share of the valid tokens that is hidden, in [0, 1).
        hidden_B: bool, true where every valid token is hidden.

    Returns:
        A mask whose number of visible tokens a sample depends on its number of valid tokens and ``hidden_B`` alone.
    """
    tokens = scores_BN.shape[1]
    slots = slot_count(tokens, mask_ratio)
    visible_B = visible_counts(valid_BN.sum(dim=1), mask_ratio).masked_fill(hidden_B, 0)
    order_BN = scores_BN.masked_fill(~valid_BN, 2.0).argsort(dim=1, stable=True)
    tokens_N = torch.arange(tokens, device=order_BN.device)
    rank_BN = torch.empty_like(order_BN).scatter_(1, order_BN, tokens_N.expand_as(order_BN))
    visible_BN = rank_BN < visible_B[:, None]
    filled_BK = torch.arange(slots, device=order_BN.device) < visible_B[:, None]
    # visible tokens go to the slots in ascending order, which is easy to read; one slot more takes the other tokens
    slot_BN = torch.where(visible_BN, visible_BN.cumsum(dim=1) - 1, slots)
    slots_BK = torch.full((len(order_BN), slots + 1), tokens - 1, device=order_BN.device)
    slots_BK = slots_BK.scatter_(1, slot_BN, tokens_N.expand_as(order_BN))[:, :slots]
    return TokenMask(slots_BK, filled_BK, visible_BN, valid_BN & ~visible_BN)


def hide_modalities(chance_B: Tensor, scores_BM: Tensor, has_data_BM: Tensor, dropout: float) -> Tensor:
    """bool (B, M): hides at most one modality of a window, and never its only one.

    Args:
        chance_B: float32 on [0, 1), one random number a window; below ``dropout`` it hides a modality.
        scores_BM: float32 on [0, 1), the modality with data and the highest score is hidden.
        has_data_BM: bool, where a modality has a valid token in the window.
        dropout: probability in [0, 1).
    """
    hides_B = (chance_B < dropout) & (has_data_BM.sum(dim=1) > 1)
    chosen_B = scores_BM.masked_fill(~has_data_BM, -1.0).argmax(dim=1)
    modalities_M = torch.arange(scores_BM.shape[1], device=scores_BM.device)
    return hides_B[:, None] & (modalities_M == chosen_B[:, None])
