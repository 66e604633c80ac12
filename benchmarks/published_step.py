"""The published pretraining step (DiffCLIP, stage 1) written plainly in eager torch: the peer of training_step.py.

It takes nothing from this project, so that a change of the project's code does not change it: torch's own transformer
layers, each modality encoded by itself, torch's own random numbers and optimizer. Every window is whole.

Shapes: B windows, N tokens of a window, K visible tokens, C bands, D width.
"""

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor, nn

WIDTH: Final = 128
HEADS: Final = 8
TOKENS: Final = 121
VISIBLE: Final = 36
TIMESTEPS: Final = 1000


def layers(depth: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(
        WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    return nn.TransformerEncoder(layer, depth, nn.LayerNorm(WIDTH), enable_nested_tensor=False)


class Modality(nn.Module):
    """What each modality has of its own: stem, class token, timestep embedding and decoder."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Linear(bands, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        )
        self.time = nn.Sequential(nn.Linear(256, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))
        self.class_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.to_decoder = nn.Linear(WIDTH, WIDTH)
        self.decoder = layers(3)
        self.head = nn.Linear(WIDTH, bands)


class PublishedModel(nn.Module):
    """The published model; a forward pass draws its own noise and masks and returns the loss."""

    signal_T: Tensor
    positions_1ND: Tensor
    frequencies_F: Tensor

    def __init__(self, bands: Mapping[str, int]) -> None:
        super().__init__()
        self.encoder = layers(4)
        self.modalities = nn.ModuleDict({name: Modality(count) for name, count in bands.items()})
        betas = torch.linspace(1e-4, 0.02, TIMESTEPS)
        self.register_buffer("signal_T", torch.cumprod(1.0 - betas, dim=0))
        self.register_buffer("positions_1ND", torch.randn(1, TOKENS, WIDTH) * 0.02)
        self.register_buffer("frequencies_F", torch.exp(-torch.arange(128) * (9.21 / 128)))

    def forward(self, windows: Mapping[str, Tensor]) -> Tensor:
        first = next(iter(windows.values()))
        batch, device = len(first), first.device
        t_B = torch.randint(TIMESTEPS, (batch,), device=device)
        signal_B11 = self.signal_T[t_B][:, None, None]
        angles_BF = t_B[:, None] * self.frequencies_F
        sinusoid_BE = torch.cat([angles_BF.sin(), angles_BF.cos()], dim=1)
        loss = first.new_zeros(())
        for name, clean_BNC in windows.items():
            own = self.modalities[name]
            assert isinstance(own, Modality)
            noised_BNC = signal_B11.sqrt() * clean_BNC + (1.0 - signal_B11).sqrt() * torch.randn_like(clean_BNC)
            order_BN = torch.rand(batch, TOKENS, device=device).argsort(dim=1)
            kept_BKD = order_BN[:, :VISIBLE, None].expand(-1, -1, WIDTH)
            tokens_BND = own.stem(noised_BNC) + self.positions_1ND
            class_B1D = own.class_token + own.time(sinusoid_BE)[:, None]
            encoded = own.to_decoder(self.encoder(torch.cat([class_B1D, tokens_BND.gather(1, kept_BKD)], dim=1)))
            filler_BND = own.mask_token.expand(batch, TOKENS, -1).to(encoded.dtype)
            whole_BND = filler_BND.scatter(1, kept_BKD, encoded[:, 1:]) + self.positions_1ND
            decoded = own.decoder(torch.cat([encoded[:, :1], whole_BND], dim=1))
            error_BN = (own.head(decoded[:, 1:]).float() - clean_BNC).square().mean(dim=2)
            visible_BN = torch.zeros_like(error_BN).scatter(1, order_BN[:, :VISIBLE], 1.0)
            loss = loss + (error_BN * visible_BN).sum() / visible_BN.sum()
            loss = loss + 0.1 * (error_BN * (1.0 - visible_BN)).sum() / (1.0 - visible_BN).sum()
        return loss
