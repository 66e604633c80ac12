"""A modality's decoder: from the encoder's output to the bands of every pixel.

Shapes: B windows, N tokens of a window, K visible slots, C bands, D the encoder's width,
E the decoder's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffclip_dist.model.masking import TokenMask
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.transformer import Transformer


def restore_places(visible_BKE: Tensor, mask: TokenMask, filler_E: Tensor) -> Tensor:
    """Puts visible tokens back at their places in the window and the filler everywhere else: (B, N, E)."""
    batch, _, width = visible_BKE.shape
    tokens = mask.visible_BN.shape[1]
    # one place more than the window has, for empty slots
    places_BK = mask.slots_BK.masked_fill(~mask.filled_BK, tokens)
    window_BNE = filler_E.to(visible_BKE.dtype).expand(batch, tokens + 1, width).clone()
    return window_BNE.scatter(1, places_BK[..., None].expand(-1, -1, width), visible_BKE)[:, :tokens]


class ModalityDecoder(nn.Module):
    """Depth 3, with mask tokens at their true places and a linear head (DiffCLIP, stage 1)."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        super().__init__()
        width = config.width_in_decoder
        self.input = nn.Linear(config.width, width)
        self.mask_token_E = nn.Parameter(torch.randn(width) * 0.02)
        self.transformer = Transformer(config.decoder_depth, width, config.heads, config.mlp_ratio)
        self.head = nn.Linear(width, bands)

    def forward(
        self, encoded_BSD: Tensor, mask: TokenMask, positions_NE: Tensor, elsewhere_BND: Tensor | None = None
    ) -> Tensor:
        """Predicted values (B, N, C).

        Args:
            encoded_BSD: the encoder's output, class token first, then the K visible slots.
            mask: where those slots belong.
            positions_NE: fixed positions of the window's pixels.
            elsewhere_BND: mean of the other modalities' encoded tokens at each place; ``None`` for separate sequences.
        """
        embedded_BSE = self.input(encoded_BSD)
        pixels_BNE = restore_places(embedded_BSE[:, 1:], mask, self.mask_token_E)
        if elsewhere_BND is not None:
            others_BNE = F.linear(elsewhere_BND, self.input.weight)
            pixels_BNE = torch.where(mask.visible_BN[..., None], pixels_BNE, pixels_BNE + others_BNE)
        pixels_BNE = pixels_BNE + positions_NE.to(pixels_BNE.dtype)
        decoded_BSE = self.transformer(torch.cat([embedded_BSE[:, :1], pixels_BNE], dim=1))
        predicted_BNC: Tensor = self.head(decoded_BSE[:, 1:])
        return predicted_BNC
