"""Noise schedules, noised values and predictions against their closed forms."""

import math

import pytest
import torch

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.diffusion import ForwardDiffusion, cumulative_signal
from diffclip_dist.model.diffusion_config import DiffusionConfig, Target
from diffclip_dist.model.mask_diffusion import draw_noise_and_masks
from diffclip_dist.model.model_config import ModelConfig
from shards.errors import BadInput

TIMESTEPS = (0, 1, 10, 500, 999)


def test_linear_signal_left_is_the_product_of_one_minus_beta() -> None:
    abar = cumulative_signal(DiffusionConfig())
    logs = [math.log1p(-(1e-4 + (0.02 - 1e-4) * t / 999)) for t in range(1000)]
    for t in TIMESTEPS:
        assert abar[t].item() == pytest.approx(math.exp(math.fsum(logs[: t + 1])), rel=1e-9)
    assert abar[999].item() == pytest.approx(4.04e-5, rel=5e-3)  # the paper's value at the last step


def test_cosine_signal_left_is_the_squared_cosine() -> None:
    abar = cumulative_signal(DiffusionConfig(schedule="cosine"))
    for t in (0, 1, 10, 500, 990):
        angles = [(share + 0.008) / 1.008 * math.pi / 2.0 for share in ((t + 1) / 1000, 0.0)]
        assert abar[t].item() == pytest.approx((math.cos(angles[0]) / math.cos(angles[1])) ** 2, rel=1e-6)
    assert bool((abar.diff() < 0.0).all())
    assert abar[999].item() > 0.0


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_noised_values_have_the_mean_and_variance_of_the_equation(schedule: str) -> None:
    config = DiffusionConfig(schedule=schedule)  # type: ignore[arg-type]
    diffusion, abar = ForwardDiffusion(config), cumulative_signal(config)
    noise = torch.randn(5, 200, 200, generator=torch.Generator().manual_seed(0))
    noised = diffusion(torch.full_like(noise, 2.0), torch.tensor(TIMESTEPS), noise)
    for row, t in enumerate(TIMESTEPS):
        left = 1.0 - abar[t].item()
        assert noised[row].mean().item() == pytest.approx(2.0 * abar[t].item() ** 0.5, abs=5 * (left / 40_000) ** 0.5)
        assert noised[row].var().item() == pytest.approx(left, rel=5 * (2 / 40_000) ** 0.5)


@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_each_prediction_leads_back_to_the_clean_values_and_the_noise(target: Target) -> None:
    diffusion = ForwardDiffusion(DiffusionConfig(target=target))
    generator = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(4, 3, 2, generator=generator) for _ in range(2))
    t = torch.tensor([1, 100, 400, 700])
    noised = diffusion(clean, t, noise)
    recovered = diffusion.clean(noised, t, diffusion.target(clean, t, noise))
    torch.testing.assert_close(recovered, clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(diffusion.noise(noised, t, clean), noise, rtol=1e-4, atol=1e-4)


def test_min_snr_states_one_loss_in_every_target() -> None:
    """Off by a small error, each target's weighted squared error is the same capped one over x_0 (Hang et al. 2023)."""
    generator = torch.Generator().manual_seed(0)
    clean, noise, error = (torch.randn(4, 3, 2, generator=generator) for _ in range(3))
    t = torch.tensor([5, 100, 400, 700])
    losses = []
    for target in ("x0", "eps", "v"):
        diffusion = ForwardDiffusion(DiffusionConfig(target=target, weighting="min_snr"))  # type: ignore[arg-type]
        noised = diffusion(clean, t, noise)
        right, off = diffusion.target(clean, t, noise), clean + error
        predicted = diffusion.target(off, t, diffusion.noise(noised, t, off))
        losses.append((predicted - right).square().mean(dim=(1, 2)) * diffusion.weights(t)[0])
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(losses[2], losses[0], rtol=1e-3, atol=1e-4)


def test_a_model_in_bfloat16_keeps_its_schedule() -> None:
    diffusion = ForwardDiffusion(DiffusionConfig())
    before = diffusion.signal_T.clone()
    assert torch.equal(diffusion.to(torch.bfloat16).signal_T, before)


def test_timesteps_are_drawn_from_their_range() -> None:
    schema = ModalitySchema("hsi", 1)
    valid, windows = torch.ones(3000, 1, dtype=torch.bool), torch.zeros(3000, 1, 1)
    batch = WindowBatch((schema,), torch.arange(3000), {schema.key: windows}, {schema.key: valid}, all_valid=True)
    config = ModelConfig(window=1, diffusion=DiffusionConfig(lowest_timestep=20, highest_timestep=29))
    assert draw_noise_and_masks(batch, config, seed=0, step=0).t_B.unique().tolist() == list(range(20, 30))


@pytest.mark.parametrize(
    "wrong",
    [{"schedule": "square"}, {"target": "x1"}, {"weighting": "snr"}, {"snr_cap": 0.0}, {"highest_timestep": 1000},
     {"lowest_timestep": 5, "highest_timestep": 4}],
)  # fmt: skip
def test_a_wrong_setting_is_refused_by_name(wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"diffusion.{next(iter(wrong))}"):
        DiffusionConfig(**wrong)  # type: ignore[arg-type]
