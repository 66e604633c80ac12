"""Errors of reconstructed masked tokens, beside two guesses that need no model.

Errors cover valid masked tokens, in standardised units: 1 is a band's standard deviation over its scene.

Shapes: B windows, N tokens of a window, C bands.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.model.masking import TokenMask
from diffclip_dist.model.sampling import ReverseChain


@dataclass(frozen=True)
class Errors:
    """Root mean squared errors of one band, or over all bands of a modality. Skill is 1 - MSE / MSE of a guess.

    None stands for an undefined number: nothing was masked, a guess has no error, or weights are not finite.

    Attributes:
        rmse: at the end of the chain.
        rmse_one_step: of a single link from the greatest timestep.
        rmse_band_mean: of guessing each band's mean over the scene, which is 0.
        rmse_window_mean: of guessing the mean of the window's visible tokens, or the band's mean where it has none.
        skill: of the chain over the band's mean: 1 is perfect, 0 no better, below 0 worse.
        skill_one_step: of the single link over the band's mean.
        skill_over_window_mean: of the chain over the window's mean.
    """

    rmse: float | None
    rmse_one_step: float | None
    rmse_band_mean: float | None
    rmse_window_mean: float | None
    skill: float | None
    skill_one_step: float | None
    skill_over_window_mean: float | None


@dataclass(frozen=True)
class ModalityErrors:
    """One modality's errors.

    Attributes:
        name: of the modality.
        key: tells it apart from others of the same name.
        windows: number of windows.
        masked_tokens: number of masked tokens in them.
        all_bands: over all bands together.
        bands: of each band.
        skill_by_timestep: of each link of the chain over the band's mean, all bands together.
    """

    name: str
    key: str
    windows: int
    masked_tokens: int
    all_bands: Errors
    bands: tuple[Errors, ...]
    skill_by_timestep: tuple[tuple[int, float | None], ...]


def window_means(values_BNC: Tensor, mask: TokenMask) -> Tensor:
    """The mean of each window's visible tokens, (B, C); 0 where it has none."""
    visible_BN1 = mask.visible_BN[..., None]
    return (values_BNC * visible_BN1).sum(dim=1) / visible_BN1.sum(dim=1).clamp_min(1)


def reconstruction_errors(batch: WindowBatch, chain: ReverseChain) -> tuple[ModalityErrors, ...]:
    """The errors of each modality, in the batch's order."""
    errors = []
    for schema in batch.schemas:
        true_BNC, mask = batch.windows[schema.key], chain.masks[schema.key]
        guesses = (
            chain.reconstructed[schema.key],
            chain.one_step[schema.key],
            torch.zeros_like(true_BNC),
            window_means(true_BNC, mask)[:, None].expand_as(true_BNC),
        )
        bands_C4 = torch.stack([_squared(guess_BNC, true_BNC, mask) for guess_BNC in guesses], dim=1)
        band_mean = bands_C4[:, 2].mean()
        by_timestep = [
            (link.timestep, _skill(_squared(link.clean[schema.key], true_BNC, mask).mean(), band_mean))
            for link in chain.links
        ]
        errors.append(
            ModalityErrors(
                name=schema.name,
                key=schema.key,
                windows=len(true_BNC),
                masked_tokens=int(mask.masked_BN.sum()),
                all_bands=_errors(bands_C4.mean(dim=0)),
                bands=tuple(_errors(band_4) for band_4 in bands_C4),
                skill_by_timestep=tuple(by_timestep),
            )
        )
    return tuple(errors)


def _squared(guess_BNC: Tensor, true_BNC: Tensor, mask: TokenMask) -> Tensor:
    """Mean squared error (C,) over masked tokens, float64; NaN where there are none."""
    masked = mask.masked_BN
    return (guess_BNC[masked].double() - true_BNC[masked].double()).square().mean(dim=0)


def _errors(mean_squares_4: Tensor) -> Errors:
    chain, one_step, band_mean, window_mean = mean_squares_4
    return Errors(
        rmse=_finite(chain.sqrt()),
        rmse_one_step=_finite(one_step.sqrt()),
        rmse_band_mean=_finite(band_mean.sqrt()),
        rmse_window_mean=_finite(window_mean.sqrt()),
        skill=_skill(chain, band_mean),
        skill_one_step=_skill(one_step, band_mean),
        skill_over_window_mean=_skill(chain, window_mean),
    )


def _skill(mean_square: Tensor, of_guess: Tensor) -> float | None:
    return _finite(1.0 - mean_square / of_guess)


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
