"""The loss of language alignment. Shapes: B pixels, C classes."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def alignment_loss(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
    """Symmetric cross-entropy between pixels and class texts with class-level targets (DiffCLIP, stage 2).

    From pixel to text, each pixel's target is its class. From text to pixel, each class that occurs in the batch has
    all of its pixels as positives, of equal share; pixels of one class are never negatives of each other.

    Args:
        logits_BC: scaled cosines.
        targets_B: class index of each pixel.

    Returns:
        The mean of both directions, a scalar.
    """
    to_text = cross_entropy(logits_BC, targets_B)
    present = torch.unique(targets_B)
    positives_PB = (targets_B[None, :] == present[:, None]).float()
    shares_PB = positives_PB / positives_PB.sum(dim=1, keepdim=True)
    to_pixel = cross_entropy(logits_BC.T[present], shares_PB)
    return (to_text + to_pixel) / 2
