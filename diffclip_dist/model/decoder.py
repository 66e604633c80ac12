"""A modality's decoder: from what the encoder saw back to every pixel's bands.

Shapes: B windows, N tokens of a window, K visible slots, C bands, D width.
"""

import torch
from torch import Tensor, nn

from diffclip_dist.model.config import ModelConfig
from diffclip_dist.model.masking import TokenMask
from diffclip_dist.model.transformer import Transformer


def restore_places(visible_BKD: Tensor, mask: TokenMask, filler_D: Tensor) -> Tensor:
    """Puts visible tokens back at their places in the window and the filler everywhere else: (B, N, D)."""
    batch, _, width = visible_BKD.shape
    tokens = mask.visible_BN.shape[1]
    # one place more than the window has, for the slots that hold no token
    places_BK = mask.slots_BK.masked_fill(~mask.filled_BK, tokens)
    window_BND = filler_D.to(visible_BKD.dtype).expand(batch, tokens + 1, width).clone()
    return window_BND.scatter(1, places_BK[..., None].expand(-1, -1, width), visible_BKD)[:, :tokens]


class ModalityDecoder(nn.Module):
    """Depth 3, with mask tokens at their true places and a linear head (DiffCLIP, stage 1)."""

    def __init__(self, bands: int, config: ModelConfig) -> None:
        super().__init__()
        self.input = nn.Linear(config.width, config.width)
        self.mask_token_D = nn.Parameter(torch.randn(config.width) * 0.02)
        self.transformer = Transformer(config.decoder_depth, config.width, config.heads, config.mlp_ratio)
        self.head = nn.Linear(config.width, bands)

    def forward(self, encoded_BSD: Tensor, mask: TokenMask, positions_ND: Tensor) -> Tensor:
        """Predicted clean values (B, N, C).

        Args:
            encoded_BSD: the encoder's output, class token first, then the K visible slots.
            mask: where those slots belong.
            positions_ND: fixed positions of the window's pixels.
        """
        embedded_BSD = self.input(encoded_BSD)
        pixels_BND = restore_places(embedded_BSD[:, 1:], mask, self.mask_token_D)
        pixels_BND = pixels_BND + positions_ND.to(pixels_BND.dtype)
        decoded_BSD = self.transformer(torch.cat([embedded_BSD[:, :1], pixels_BND], dim=1))
        predicted_BNC: Tensor = self.head(decoded_BSD[:, 1:])
        return predicted_BNC
