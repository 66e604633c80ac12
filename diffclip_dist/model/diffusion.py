"""Forward diffusion (DiffCLIP, stage 1; Ho et al. 2020, eq. 4).

Shapes: B samples, N tokens of a window, C bands, T timesteps.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from shards.errors import BadInput


@dataclass(frozen=True)
class DiffusionConfig:
    """The noise schedule.

    Attributes:
        timesteps: T, at least 1.
        beta_start: variance added at the first timestep, in (0, 1).
        beta_end: variance added at the last timestep, linear in between.
    """

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02

    def __post_init__(self) -> None:
        if self.timesteps < 1:
            raise BadInput(f"diffusion.timesteps: expected at least 1, found {self.timesteps}")
        if not 0.0 < self.beta_start <= self.beta_end < 1.0:
            raise BadInput(
                "diffusion.beta_start, diffusion.beta_end: expected 0 < start <= end < 1, "
                f"found {self.beta_start} and {self.beta_end}"
            )


def cumulative_signal(config: DiffusionConfig) -> Tensor:
    """abar_t, float32 (T,): the share of the signal's variance left at each timestep."""
    betas = torch.linspace(config.beta_start, config.beta_end, config.timesteps, dtype=torch.float64)
    return torch.cumprod(1.0 - betas, dim=0).to(torch.float32)


class ForwardDiffusion(nn.Module):
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps."""

    abar_T: Tensor

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.register_buffer("abar_T", cumulative_signal(config), persistent=False)

    def forward(self, clean_BNC: Tensor, t_B: Tensor, noise_BNC: Tensor) -> Tensor:
        """Noised values, of the clean values' shape. ``t_B`` is int64 in 0 .. T - 1."""
        abar_B11 = self.abar_T[t_B][:, None, None].to(clean_BNC.dtype)
        return abar_B11.sqrt() * clean_BNC + (1.0 - abar_B11).sqrt() * noise_BNC
