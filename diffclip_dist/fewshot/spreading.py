"""Scores spread over a graph of the scene's unlabelled pixels, so that a class follows what it is connected with.

Label spreading (Zhou et al. 2004, Learning with local and global consistency), begun from a kernel head's scores in
place of labels, over pixels that are alike and near each other. A head is fitted to what they come to, so that it
says something of every other pixel too.

Shapes: A anchors, the support among them; S ways of describing a pixel; K width of a description; C classes; E text
width.
"""

from typing import Final

import numpy as np
import torch
from torch import Tensor

from diffclip_dist.features.extractor import Described
from diffclip_dist.features.views import Positions
from diffclip_dist.fewshot.kernel_head import RIDGE, KernelHead

# All chosen on the two generated scenes, for 1 to 10 shots
ANCHORS: Final = 1_000  # unlabelled pixels, evenly spread over the scene
NEIGHBOURS: Final = 10
REACH: Final = 4.0  # in distances between anchors: how far pixels are that count as alike
ANCHOR_RIDGE: Final = 0.1  # beside that of labelled pixels, whose scores are better known
PASSED_ON: Final = 0.8  # alpha: of a pixel's score, what comes from its neighbours


def spread_scores(
    head: KernelHead, described: Described, rows: Positions, cols: Positions, text_CE: Tensor
) -> KernelHead:
    """The head fitted anew, to its scores spread over the scene.

    Args:
        head: fitted to the labelled pixels.
        described: the scene's pixels, described, the labelled ones among them.
        rows: of the labelled pixels, in the order of the head's support.
        cols: the same.
        text_CE: unit class vectors.
    """
    places_A2 = _anchors(described, rows, cols)
    anchors_SAK = described.at(places_A2[:, 0].numpy(), places_A2[:, 1].numpy())
    score_AC = head.scores(anchors_SAK, text_CE).double()
    spacing = (described.pixels.shape[1] / len(places_A2)) ** 0.5
    apart_SAA = torch.cdist(anchors_SAK.double(), anchors_SAK.double()).square() / head.spread_S[:, None, None]
    weight_S = head.weight_G.view(len(apart_SAA), -1).sum(dim=1).double()
    apart_AA = torch.tensordot(weight_S, apart_SAA, dims=1)
    linked_AA = _graph(apart_AA, places_A2.double() / (REACH * spacing))
    spread_AC = torch.linalg.solve(torch.eye(len(linked_AA)) - PASSED_ON * linked_AA, score_AC)
    spread_AC *= score_AC.norm() / spread_AC.norm()
    labelled = len(rows)
    spread_AC[:labelled] = score_AC[:labelled]
    ridge_A = torch.full((len(places_A2),), ANCHOR_RIDGE, dtype=torch.float64)
    ridge_A[:labelled] = RIDGE
    return KernelHead.through(
        head.describer, anchors_SAK, head.spread_S, head.weight_G, spread_AC, ridge_A, spread_AC.mean(dim=0), text_CE
    )


def _anchors(described: Described, rows: Positions, cols: Positions) -> Tensor:
    """Rows and columns (A, 2): the labelled pixels first, then evenly spread others."""
    others = described.known_HW.numpy().copy()
    others[rows, cols] = False
    found = np.argwhere(others)
    kept = found[np.linspace(0, len(found) - 1, min(ANCHORS, len(found))).astype(np.int64)]
    return torch.from_numpy(np.concatenate([np.stack([rows, cols], axis=1), kept]))


def _graph(apart_AA: Tensor, places_A2: Tensor) -> Tensor:
    """Symmetrically normalised weights (A, A) between each pixel and those nearest to it by description and place."""
    neighbours = min(NEIGHBOURS, len(apart_AA) - 1)
    apart_AA = apart_AA + torch.diag(torch.full((len(apart_AA),), torch.inf, dtype=torch.float64))
    usual = apart_AA.kthvalue(max(neighbours, 1), dim=1).values.median().clamp_min(1e-12)
    apart_AA = apart_AA / usual + torch.cdist(places_A2, places_A2).square()
    nearest = apart_AA.topk(neighbours, dim=1, largest=False)
    weight_AA = torch.zeros_like(apart_AA).scatter_(1, nearest.indices, torch.exp(-nearest.values))
    weight_AA = torch.maximum(weight_AA, weight_AA.T)
    root_A = weight_AA.sum(dim=1).clamp_min(1e-12).sqrt()
    linked_AA: Tensor = weight_AA / root_A[:, None] / root_A
    return linked_AA
