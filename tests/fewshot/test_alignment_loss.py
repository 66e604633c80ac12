"""The class-level loss against hand calculation."""

import math

import pytest
import torch

from diffclip_dist.fewshot.loss import alignment_loss


def test_two_pixels_of_one_class_share_the_target() -> None:
    logits_BC = torch.tensor([[1.0, 0.0], [2.0, -1.0], [0.5, 3.0]])
    targets_B = torch.tensor([0, 0, 1])

    def log_share(value: float, others: list[float]) -> float:
        return value - math.log(sum(math.exp(other) for other in others))

    to_text = -(log_share(1, [1, 0]) + log_share(2, [2, -1]) + log_share(3, [0.5, 3])) / 3
    first = -(log_share(1, [1, 2, 0.5]) + log_share(2, [1, 2, 0.5])) / 2
    second = -log_share(3, [0, -1, 3])
    expected = (to_text + (first + second) / 2) / 2
    assert float(alignment_loss(logits_BC, targets_B)) == pytest.approx(expected, rel=1e-5)


def test_a_class_without_a_pixel_is_a_negative_only() -> None:
    logits_BC = torch.tensor([[1.0, 0.0, 5.0]])
    expected = -(1 - math.log(math.e + 1 + math.exp(5))) / 2
    assert float(alignment_loss(logits_BC, torch.tensor([0]))) == pytest.approx(expected, rel=1e-5)


def test_the_order_of_pixels_and_of_classes_does_not_matter() -> None:
    logits_BC = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    targets_B = torch.tensor([0, 1, 1, 3, 0, 2, 2])
    pixels = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    classes = torch.tensor([2, 0, 3, 1])
    renamed_B = torch.argsort(classes)[targets_B]
    expected = alignment_loss(logits_BC, targets_B)
    assert torch.allclose(alignment_loss(logits_BC[pixels], targets_B[pixels]), expected)
    assert torch.allclose(alignment_loss(logits_BC[:, classes], renamed_B), expected)
