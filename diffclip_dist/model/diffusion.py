"""Forward diffusion, and the target that the model predicts (DiffCLIP, stage 1; Ho et al. 2020, eq. 4).

Shapes: B samples, N tokens of a window, C bands, T timesteps.
"""

import math
from collections.abc import Callable
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from diffclip_dist.model.diffusion_config import DiffusionConfig

_COSINE_OFFSET: Final = 0.008
_LARGEST_BETA: Final = 0.999


def cumulative_signal(config: DiffusionConfig) -> Tensor:
    """abar_t, float64 (T,): the share of the signal's variance that remains at each timestep."""
    if config.schedule == "linear":
        betas = torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
    else:
        ends = torch.arange(config.timesteps + 1, dtype=torch.float64) / config.timesteps
        left = torch.cos((ends + _COSINE_OFFSET) / (1.0 + _COSINE_OFFSET) * math.pi / 2.0).square()
        betas = (1.0 - left[1:] / left[:-1]).clamp_max(_LARGEST_BETA)
    return torch.cumprod(1.0 - betas, dim=0)


class ForwardDiffusion(nn.Module):
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps, and the way back from each prediction.

    Every method takes ``t_B``, int64 in 0 .. T - 1, and works in float32.
    """

    signal_T: Tensor  # sqrt(abar), float32
    noise_T: Tensor  # sqrt(1 - abar), float32

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        abar_T = cumulative_signal(config)
        self.register_buffer("signal_T", abar_T.sqrt().to(torch.float32), persistent=False)
        self.register_buffer("noise_T", (1.0 - abar_T).sqrt().to(torch.float32), persistent=False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Moves to a device but stays float32: bfloat16 would make neighbouring timesteps equal."""
        before = self.signal_T.dtype, self.signal_T, self.noise_T
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.signal_T.dtype != before[0]:
            self.signal_T, self.noise_T = (table.to(self.signal_T.device) for table in before[1:])
        return self

    def forward(self, clean_BNC: Tensor, t_B: Tensor, noise_BNC: Tensor) -> Tensor:
        """Noised values x_t, in the shape of the clean values."""
        signal_B11, noise_B11 = self._shares(t_B)
        return signal_B11 * clean_BNC + noise_B11 * noise_BNC

    def target(self, clean_BNC: Tensor, t_B: Tensor, noise_BNC: Tensor) -> Tensor:
        """What the decoders predict at visible tokens; v = sqrt(abar) eps - sqrt(1 - abar) x_0."""
        if self.config.target == "x0":
            return clean_BNC
        if self.config.target == "eps":
            return noise_BNC
        signal_B11, share_B11 = self._shares(t_B)
        return signal_B11 * noise_BNC - share_B11 * clean_BNC

    def clean(self, noised_BNC: Tensor, t_B: Tensor, predicted_BNC: Tensor) -> Tensor:
        """x_0 from x_t and a prediction of the target."""
        if self.config.target == "x0":
            return predicted_BNC
        signal_B11, noise_B11 = self._shares(t_B)
        if self.config.target == "eps":
            return (noised_BNC - noise_B11 * predicted_BNC) / signal_B11
        return signal_B11 * noised_BNC - noise_B11 * predicted_BNC

    def noise(self, noised_BNC: Tensor, t_B: Tensor, clean_BNC: Tensor) -> Tensor:
        """eps from x_t and x_0."""
        signal_B11, noise_B11 = self._shares(t_B)
        return (noised_BNC - signal_B11 * clean_BNC) / noise_B11

    def earlier(self, noised_BNC: Tensor, t_B: Tensor, clean_BNC: Tensor, earlier_B: Tensor) -> Tensor:
        """x_s at an earlier timestep s from x_t and x_0, without new noise (Song et al. 2021, eq. 12, sigma = 0)."""
        return self(clean_BNC, earlier_B, self.noise(noised_BNC, t_B, clean_BNC))  # type: ignore[no-any-return]

    def weights(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        """Weights (B,) of the losses over visible and over masked tokens.

        Min-SNR weighs the loss over x_0 by min(snr, gamma). The same loss over eps takes this weight times 1 / snr,
        and over v times 1 / (snr + 1) (Hang et al. 2023, section 3.4).
        """
        if self.config.weighting == "constant":
            one_B = torch.ones_like(t_B, dtype=torch.float32)
            return one_B, one_B
        snr_B = (self.signal_T[t_B] / self.noise_T[t_B]).square()
        clean_B = snr_B.clamp_max(self.config.snr_cap)
        divisor_B = {"x0": torch.ones_like(snr_B), "eps": snr_B, "v": snr_B + 1.0}[self.config.target]
        return clean_B / divisor_B, clean_B

    def _shares(self, t_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.signal_T[t_B][:, None, None], self.noise_T[t_B][:, None, None]
