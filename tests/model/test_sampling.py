"""The reverse chain over masked windows: its equation, what it keeps, and the figures of its end."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.diffusion import ForwardDiffusion, cumulative_signal
from diffclip_dist.model.diffusion_config import DiffusionConfig, Schedule, Target
from diffclip_dist.model.mask_diffusion import MaskDiffusion, NoiseAndMasks, draw_noise_and_masks
from diffclip_dist.model.masking import TokenMask
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.reconstruction_error import reconstruction_errors, window_means
from diffclip_dist.model.sampling import ReverseChain, chain_timesteps, reverse_chain

VARIANTS = [
    {},
    {"fusion": "joint", "modality_dropout": 0.9},
    {"stem": "wavelength", "decoder_width": 8, "diffusion": DiffusionConfig(target="eps", schedule="cosine")},
    {"fusion": "joint", "stem": "wavelength", "diffusion": DiffusionConfig(target="v", weighting="min_snr")},
]


class Oracle(MaskDiffusion):
    """Predicts what it was given at its making: the target at visible tokens, x_0 at masked ones."""

    def __init__(self, config: ModelConfig, batch: WindowBatch, drawn: NoiseAndMasks) -> None:
        super().__init__(config, batch.schemas)
        self.batch, self.drawn = batch, drawn
        self.visible_input_error = 0.0

    def predict(
        self,
        schemas: Sequence[ModalitySchema],
        noised: Mapping[str, torch.Tensor],
        t_B: torch.Tensor,
        masks: Mapping[str, TokenMask],
        all_filled: bool,
    ) -> dict[str, torch.Tensor]:
        assert not all_filled, "slots may be empty"
        predicted = {}
        for key in (schema.key for schema in schemas):
            clean = self.batch.windows[key]
            noise, visible = self.drawn.noise[key], masks[key].visible_BN
            off = (noised[key] - self.diffusion(clean, t_B, noise))[visible]
            self.visible_input_error = max(self.visible_input_error, off.abs().max().item())
            target = self.diffusion.target(clean, t_B, noise)
            predicted[key] = torch.where(visible[..., None], target, clean)
        return predicted


def rows(batch: WindowBatch, kept: list[int]) -> WindowBatch:
    """Some windows of a batch."""
    return replace(
        batch,
        positions_B=batch.positions_B[kept],
        windows={key: values[kept] for key, values in batch.windows.items()},
        valid={key: values[kept] for key, values in batch.valid.items()},
    )


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_link_is_the_closed_form(schedule: Schedule) -> None:
    config = DiffusionConfig(schedule=schedule)
    diffusion, abar = ForwardDiffusion(config), cumulative_signal(config)
    generator = torch.Generator().manual_seed(0)
    noised, clean = (torch.randn(4, 3, 2, generator=generator) for _ in range(2))
    before, after = (999, 700, 300, 20), (700, 300, 20, 0)
    got = diffusion.earlier(noised, torch.tensor(before), clean, torch.tensor(after))
    for row, (t, s) in enumerate(zip(before, after, strict=True)):
        of_noised = math.sqrt((1.0 - abar[s].item()) / (1.0 - abar[t].item()))
        of_clean = math.sqrt(abar[s].item()) - math.sqrt(abar[t].item()) * of_noised
        torch.testing.assert_close(got[row], of_noised * noised[row] + of_clean * clean[row], rtol=1e-4, atol=1e-5)


def test_timesteps_are_even_and_reach_both_ends() -> None:
    config = DiffusionConfig(highest_timestep=None)
    assert chain_timesteps(config, 10) == (999, 888, 777, 666, 555, 444, 333, 222, 111, 0)
    assert chain_timesteps(config, 1) == (999,)
    assert chain_timesteps(replace(config, lowest_timestep=20, highest_timestep=22), 10) == (22, 21, 20)
    assert chain_timesteps(replace(config, lowest_timestep=20, highest_timestep=101), 4) == (101, 74, 47, 20)
    assert chain_timesteps(DiffusionConfig(timesteps=1, highest_timestep=None), 5) == (0,)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_a_perfect_model_gives_back_the_truth_along_the_path_of_one_noise(
    config: ModelConfig, batch: WindowBatch, target: Target, schedule: Schedule
) -> None:
    config = replace(config, diffusion=DiffusionConfig(target=target, schedule=schedule))
    drawn = draw_noise_and_masks(batch, config, seed=3, step=0)
    oracle = Oracle(config, batch, drawn)
    chain = reverse_chain(oracle, batch, drawn, steps=12)
    assert oracle.visible_input_error < 1e-3, "the encoder does not see what it saw in pretraining"
    start_B = torch.full_like(drawn.t_B, chain.links[0].timestep)
    for key, clean in batch.windows.items():
        masked = drawn.masks[key].masked_BN
        assert torch.equal(chain.reconstructed[key], clean)
        assert torch.equal(chain.links[0].noised[key][masked], drawn.noise[key][masked])
        # with a perfect model sigma = 0 means that each link lies on the forward path of the noise it began with
        noise = oracle.diffusion.noise(chain.links[0].noised[key], start_B, clean)
        for link in chain.links[1:]:
            on_path = oracle.diffusion(clean, torch.full_like(start_B, link.timestep), noise)
            torch.testing.assert_close(link.noised[key][masked], on_path[masked], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("changed", VARIANTS, ids=str)
def test_only_masked_tokens_with_data_are_changed(
    config: ModelConfig, batch: WindowBatch, changed: dict[str, object]
) -> None:
    config = replace(config, **changed)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = MaskDiffusion(config, batch.schemas)
    drawn = draw_noise_and_masks(batch, config, seed=3, step=0)
    chain = reverse_chain(model, batch, drawn, steps=4)
    for key, clean in batch.windows.items():
        masked, said = drawn.masks[key].masked_BN, chain.reconstructed[key]
        assert torch.equal(said[~masked], clean[~masked])
        assert bool(torch.isfinite(said).all())
        assert bool((said[masked] != clean[masked]).all())


@pytest.mark.parametrize("changed", VARIANTS, ids=str)
def test_a_window_is_reconstructed_alike_alone_and_in_a_batch_and_whatever_was_drawn_before(
    config: ModelConfig, batch: WindowBatch, changed: dict[str, object]
) -> None:
    config = replace(config, **changed)  # type: ignore[arg-type]
    torch.manual_seed(0)
    model = MaskDiffusion(config, batch.schemas)

    def reconstructed(part: WindowBatch, seed: int) -> Mapping[str, torch.Tensor]:
        return reverse_chain(model, part, draw_noise_and_masks(part, config, seed, step=0), steps=4).reconstructed

    whole = reconstructed(batch, 3)
    torch.manual_seed(99)
    again, other = reconstructed(batch, 3), reconstructed(batch, 4)
    for key in batch.windows:
        assert torch.equal(again[key], whole[key])
        assert not torch.equal(other[key], whole[key])
        for row in range(6):
            torch.testing.assert_close(reconstructed(rows(batch, [row]), 3)[key][0], whole[key][row])


def test_what_the_model_says_depends_on_visible_tokens_alone(
    model: MaskDiffusion, config: ModelConfig, batch: WindowBatch
) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=3, step=0)
    spoiled = {
        key: torch.where(drawn.masks[key].visible_BN[..., None], values, 1e4) for key, values in batch.windows.items()
    }
    chain, blind = (
        reverse_chain(model, part, drawn, steps=3).reconstructed for part in (batch, replace(batch, windows=spoiled))
    )
    for key, mask in drawn.masks.items():
        assert torch.equal(chain[key][mask.masked_BN], blind[key][mask.masked_BN])


def test_errors_are_the_hand_calculation(model: MaskDiffusion, config: ModelConfig, batch: WindowBatch) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=3, step=0)
    chain = reverse_chain(model, batch, drawn, steps=3)
    errors = reconstruction_errors(batch, chain)
    assert [error.name for error in errors] == ["hsi", "lidar"]
    for error in errors:
        clean, mask = batch.windows[error.key], drawn.masks[error.key]
        assert error.masked_tokens == int(mask.masked_BN.sum())
        guesses = {"chain": [], "window": [], "band": []}  # type: dict[str, list[list[float]]]
        for window, place in mask.masked_BN.nonzero().tolist():
            true = clean[window, place]
            seen = clean[window][mask.visible_BN[window]].mean(dim=0)
            guesses["chain"].append((chain.reconstructed[error.key][window, place] - true).square().tolist())
            guesses["window"].append((seen - true).square().tolist())
            guesses["band"].append(true.square().tolist())
        squares = {name: torch.tensor(found).mean(dim=0) for name, found in guesses.items()}
        for band, figures in enumerate(error.bands):
            assert figures.rmse == pytest.approx(squares["chain"][band].sqrt().item(), rel=1e-5)
            assert figures.rmse_band_mean == pytest.approx(squares["band"][band].sqrt().item(), rel=1e-5)
            assert figures.rmse_window_mean == pytest.approx(squares["window"][band].sqrt().item(), rel=1e-5)
            skill = 1.0 - (squares["chain"][band] / squares["band"][band]).item()
            assert figures.skill == pytest.approx(skill, rel=1e-4, abs=1e-5)
        over_window = 1.0 - (squares["chain"].mean() / squares["window"].mean()).item()
        assert error.all_bands.skill_over_window_mean == pytest.approx(over_window, rel=1e-4, abs=1e-5)
        timesteps, skills = zip(*error.skill_by_timestep, strict=True)
        assert timesteps == (299, 150, 0)
        assert skills[0] == pytest.approx(error.all_bands.skill_one_step)
        assert skills[-1] == pytest.approx(error.all_bands.skill)


def test_the_truth_has_skill_one_and_the_guesses_are_worth_what_they_say(
    config: ModelConfig, batch: WindowBatch
) -> None:
    drawn = draw_noise_and_masks(batch, config, seed=3, step=0)
    exact = reconstruction_errors(batch, reverse_chain(Oracle(config, batch, drawn), batch, drawn, steps=2))
    assert [error.all_bands.skill for error in exact] == [1.0, 1.0]
    guessed = {
        key: torch.where(drawn.masks[key].masked_BN[..., None], window_means(values, drawn.masks[key])[:, None], values)
        for key, values in batch.windows.items()
    }
    chain = reverse_chain(Oracle(config, batch, drawn), batch, drawn, steps=1)
    means = ReverseChain(chain.masks, (replace(chain.links[0], clean=guessed),))
    assert [error.all_bands.skill_over_window_mean for error in reconstruction_errors(batch, means)] == [0.0, 0.0]


def test_what_is_no_number_is_left_out(config: ModelConfig, batch: WindowBatch) -> None:
    """Nothing masked; a constant band, which is 0 once standardised; a window with a modality wholly hidden."""
    open_config = replace(config, mask_ratio=0.0)
    drawn = draw_noise_and_masks(batch, open_config, seed=3, step=0)
    nothing = reconstruction_errors(batch, reverse_chain(Oracle(open_config, batch, drawn), batch, drawn, steps=1))
    assert [(error.masked_tokens, error.all_bands.rmse, error.all_bands.skill) for error in nothing] == [
        (0, None, None)
    ] * 2

    hsi = batch.schemas[0].key
    constant = {**batch.windows, hsi: batch.windows[hsi].clone()}
    constant[hsi][..., 4] = 0.0
    flat = replace(batch, windows=constant)
    hiding = replace(config, modality_dropout=0.9)
    drawn = draw_noise_and_masks(flat, hiding, seed=3, step=0)
    assert not bool(drawn.masks[hsi].visible_BN.any(dim=1).all())
    errors = reconstruction_errors(flat, reverse_chain(Oracle(hiding, flat, drawn), flat, drawn, steps=1))[0]
    assert errors.bands[4].rmse_band_mean == 0.0
    assert errors.bands[4].skill is None
    assert errors.bands[3].skill == 1.0
    assert errors.all_bands.skill == 1.0
