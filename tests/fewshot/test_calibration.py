"""Calibration: temperatures that give back the share that is right, and the error that is measured without them."""

import numpy as np
import pytest
import torch

from diffclip_dist.fewshot.calibration import (
    LEAST_HELD_OUT,
    CalibrationTest,
    Reliability,
    fit_temperature,
)


def overconfident(pixels: int, sharpness: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are too sharp by the given factor, and classes drawn from the right probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits_PC = torch.randn(pixels, 4, generator=generator)
    drawn_P = torch.multinomial(torch.softmax(logits_PC, dim=1), 1, generator=generator)[:, 0]
    return sharpness * logits_PC, drawn_P


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_many_held_out_pixels_find_the_temperature(sharpness: float) -> None:
    found = fit_temperature(*overconfident(20_000, sharpness), shots=20)
    assert found.temperature == pytest.approx(sharpness, rel=0.05)
    assert found.calibrated


def test_few_held_out_pixels_say_that_they_are_few() -> None:
    none = fit_temperature(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), shots=1)
    assert (none.held_out_pixels, none.calibrated) == (0, False)
    few = fit_temperature(*overconfident(LEAST_HELD_OUT - 1, 1.0), shots=2)
    assert not few.calibrated
    many = fit_temperature(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), shots=100)
    assert 1.0 < many.temperature < few.temperature < none.temperature


def test_expected_calibration_error_is_the_gap_of_confidence_and_accuracy() -> None:
    confidence = np.array([0.91, 0.91, 0.91, 0.91, 0.5, 0.5])
    correct = np.array([True, True, False, False, True, False])
    found = Reliability.of(confidence, correct)
    assert sum(found.pixels) == 6
    assert found.expected_calibration_error == pytest.approx(100 * (4 * 0.41 + 2 * 0.0) / 6)
    twice = Reliability.joined([found, found])
    assert sum(twice.pixels) == 12
    assert twice.expected_calibration_error == pytest.approx(found.expected_calibration_error)
    assert Reliability.of(np.array([1.0]), np.array([True])).expected_calibration_error == 0.0


def test_a_temperature_lowers_the_error_on_other_pixels() -> None:
    logits_PC, drawn_P = overconfident(8_000, 3.0)
    calibration = fit_temperature(logits_PC[:4_000], drawn_P[:4_000], shots=20)
    found = CalibrationTest.of(calibration, logits_PC[4_000:], drawn_P[4_000:].numpy())
    assert found.before.expected_calibration_error > 15
    assert found.after.expected_calibration_error < 3
