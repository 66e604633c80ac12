"""Draws are functions of seed and position, and have the distributions they claim."""

import numpy as np
import torch

from diffclip_dist import randomness


def splitmix_reference(state: int, count: int) -> list[int]:
    """SplitMix64 as its authors wrote it, one word after the other."""
    word, words = (1 << 64) - 1, []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & word
        mixed = state
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & word
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & word
        words.append(mixed ^ (mixed >> 31))
    return words


def test_uniform_numbers_are_splitmix64s_upper_bits() -> None:
    key = 123456789
    drawn = randomness.uniform(torch.tensor([key]), 5)[0]
    expected = [(word >> 40) * 2.0**-24 for word in splitmix_reference(key, 5)]
    assert drawn.tolist() == expected


def test_permutation_sorts_splitmix64() -> None:
    words = splitmix_reference(randomness.fold(7, 3), 50)
    assert randomness.permutation(50, 7, 3).tolist() == np.argsort(words, kind="stable").tolist()


def test_fold_tells_positions_apart() -> None:
    positions = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (2**64 - 1,), (256,), (1, 0, 0)]
    assert len({randomness.fold(*position) for position in positions}) == len(positions)


def test_a_samples_numbers_do_not_depend_on_its_batch() -> None:
    keys = randomness.keys(torch.arange(64), 5, 17)
    whole = randomness.normal(keys, 33)
    assert torch.equal(whole[40:41], randomness.normal(keys[40:41], 33))
    assert torch.equal(whole.flip(0), randomness.normal(keys.flip(0), 33))


def test_normal_numbers_are_standard_and_independent() -> None:
    drawn = randomness.normal(randomness.keys(torch.arange(2000), 1), 501)
    count = drawn.numel()
    assert abs(drawn.mean().item()) < 5 / count**0.5
    assert abs(drawn.var().item() - 1.0) < 5 * (2 / count) ** 0.5
    assert abs((drawn**4).mean().item() - 3.0) < 5 * (96 / count) ** 0.5
    neighbours = (drawn[:, 1:] * drawn[:, :-1]).mean().item()
    halves = (drawn[:, :250] * drawn[:, 251:501]).mean().item()  # sine and cosine of one word
    samples = (drawn[1:] * drawn[:-1]).mean().item()
    assert max(abs(neighbours), abs(halves), abs(samples)) < 5 / (count / 2) ** 0.5
    assert bool(torch.isfinite(drawn).all())


def test_integers_cover_their_range_evenly() -> None:
    drawn = randomness.integers(randomness.keys(torch.arange(100_000), 9), 1000)
    counts = torch.bincount(drawn, minlength=1000).double()
    assert len(counts) == 1000
    chi_squared = ((counts - 100.0) ** 2 / 100.0).sum().item()
    assert abs(chi_squared - 999.0) < 5 * (2 * 999.0) ** 0.5
