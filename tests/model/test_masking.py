"""How many tokens a window shows, which ones, and which modality is hidden: against counts worked out by hand."""

import pytest
import torch
from pretend_device import pretend_device

from diffclip_dist.model.masking import TokenMask, draw_mask, hide_modalities, slot_count, visible_counts

# valid tokens, share that is hidden, visible tokens: the rest rounded down, one at least
COUNTS = [
    (121, 0.7, 36), (10, 0.7, 3), (20, 0.9, 2), (9, 0.7, 2), (3, 0.7, 1), (2, 0.7, 1), (1, 0.7, 1), (0, 0.7, 0),
    (121, 0.0, 121), (4, 0.5, 2), (430, 0.9, 43), (100, 0.41, 59),
]  # fmt: skip


@pytest.mark.parametrize(("tokens", "ratio", "expected"), COUNTS)
def test_so_many_tokens_stay_visible(tokens: int, ratio: float, expected: int) -> None:
    assert int(visible_counts(torch.tensor(tokens), ratio)) == expected
    assert slot_count(tokens, ratio) == expected


def test_the_lowest_scores_stay_visible_and_missing_tokens_are_neither() -> None:
    scores_BN = torch.tensor([[0.9, 0.1, 0.5, 0.0, 0.3], [0.2, 0.4, 0.0, 0.99, 0.1], [0.5, 0.4, 0.3, 0.2, 0.1]])
    valid_BN = torch.ones(3, 5, dtype=torch.bool)
    valid_BN[0, 3] = False  # the lowest score of its window
    valid_BN[1, [0, 2, 4]] = False  # but two are left, the highest of all among them
    mask = draw_mask(scores_BN, valid_BN, 0.4, torch.tensor([False, False, True]))
    assert mask.visible_BN.nonzero().tolist() == [[0, 1], [0, 4], [1, 1]]
    assert mask.masked_BN.nonzero().tolist() == [[0, 0], [0, 2], [1, 3], *([2, token] for token in range(5))]
    assert mask.slots_BK.shape == (3, 3)
    assert mask.filled_BK.tolist() == [[True, True, False], [True, False, False], [False, False, False]]
    assert [mask.slots_BK[row][mask.filled_BK[row]].tolist() for row in range(3)] == [[1, 4], [1], []]
    assert bool(((mask.slots_BK >= 0) & (mask.slots_BK < 5)).all()), "an empty slot too points to a token"


def test_of_equal_scores_the_first_tokens_stay_visible() -> None:
    mask = draw_mask(torch.zeros(1, 121), torch.ones(1, 121, dtype=torch.bool), 0.7, torch.zeros(1, dtype=torch.bool))
    assert mask.visible_BN.nonzero()[:, 1].tolist() == list(range(36))
    assert mask.slots_BK.tolist() == [list(range(36))]


def test_the_modality_of_the_highest_score_is_hidden_among_those_with_data() -> None:
    scores_BM = torch.tensor([[0.2, 0.9, 0.5]] * 5)
    has_data_BM = torch.tensor([[True, True, True], [True, False, True], [True] * 3, [False, True, False], [True] * 3])
    chance_B = torch.tensor([0.0, 0.1, 0.3, 0.0, 0.29])
    hidden_BM = hide_modalities(chance_B, scores_BM, has_data_BM, dropout=0.3)
    assert hidden_BM.nonzero().tolist() == [[0, 1], [1, 2], [4, 1]]


def test_without_dropout_none_is_hidden() -> None:
    hidden_BM = hide_modalities(torch.zeros(4), torch.rand(4, 2), torch.ones(4, 2, dtype=torch.bool), dropout=0.0)
    assert not bool(hidden_BM.any())


def test_masks_are_drawn_where_the_scores_are() -> None:
    scores_BN, valid_BN = torch.rand(3, 9, generator=torch.Generator().manual_seed(0)), torch.ones(3, 9).bool()
    hidden_B = torch.tensor([False, True, False])

    def drawn(scores: torch.Tensor, valid: torch.Tensor, hidden: torch.Tensor) -> tuple[TokenMask, torch.Tensor]:
        mask = draw_mask(scores, valid, 0.7, hidden)
        return mask, hide_modalities(scores[:, 0], scores[:, 1:3], valid[:, 1:3], 0.9)

    here, hidden_here = drawn(scores_BN, valid_BN, hidden_B)
    with pretend_device() as device:
        there, hidden_there = drawn(scores_BN.to(device), valid_BN.to(device), hidden_B.to(device))
        assert {part.device for part in (*vars(there).values(), hidden_there)} == {device}
    for name, values in vars(here).items():
        assert vars(there)[name].tolist() == values.tolist(), name
    assert hidden_there.tolist() == hidden_here.tolist()
