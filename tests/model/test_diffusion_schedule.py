"""The noise schedule against its closed form."""

import math

import pytest
import torch

from diffclip_dist.model.diffusion import DiffusionConfig, ForwardDiffusion, cumulative_signal


def test_signal_left_is_the_product_of_one_minus_beta() -> None:
    config = DiffusionConfig()
    abar = cumulative_signal(config)
    logs = [math.log1p(-(1e-4 + (0.02 - 1e-4) * t / 999)) for t in range(1000)]
    for t in (0, 1, 10, 500, 999):
        assert abar[t].item() == pytest.approx(math.exp(math.fsum(logs[: t + 1])), rel=1e-6)
    assert abar[999].item() == pytest.approx(4.04e-5, rel=5e-3)  # the paper's value at the last step


def test_noised_values_keep_unit_variance_and_mix_as_the_equation_says() -> None:
    diffusion = ForwardDiffusion(DiffusionConfig())
    clean, noise = torch.tensor([[[2.0]], [[2.0]]]), torch.tensor([[[-1.0]], [[-1.0]]])
    noised = diffusion(clean, torch.tensor([0, 999]), noise)
    for row, t in enumerate((0, 999)):
        abar = diffusion.abar_T[t].item()
        assert noised[row].item() == pytest.approx(2.0 * abar**0.5 - (1.0 - abar) ** 0.5, rel=1e-5)
