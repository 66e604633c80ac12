"""Permutations that give any single entry at once, without a table: a rank computes its own samples alone.

A Feistel network over two digits permutes a range that is a little larger than asked for; an entry that falls outside
is permuted again until it is inside ("cycle walking"; Black and Rogaway, Ciphers with Arbitrary Finite Domains, CT-RSA
2002). A keyed rotation before and after makes each entry uniform, also in ranges of a few numbers.

Shapes: B entries.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from diffclip_dist.randomness import mix_words

Indices = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

# pairs of entries show no bias in 200,000 permutations of 16 numbers and more; with 8 rounds they do
_ROUNDS: Final = 10
_GAMMA: Final = np.uint64(0x9E3779B97F4A7C15)
_MIX_1: Final = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2: Final = np.uint64(0x94D049BB133111EB)
_HALF: Final = np.uint64(32)
_ONE: Final = np.uint64(1)


def permuted(entries_B: Indices, counts_B: Indices, keys_B: Words) -> Indices:
    """Where permutations send entries; each entry may belong to a permutation of its own.

    Args:
        entries_B: from 0 to below the count.
        counts_B: how many numbers are permuted, from 1 to below 2**32.
        keys_B: which permutation of so many numbers.

    Returns:
        int64 (B,), from 0 to below the count.
    """
    counts = counts_B.astype(np.uint64)
    low = np.ceil(np.sqrt(counts_B)).astype(np.uint64)
    high = (counts + low - _ONE) // low
    places = _rotated(entries_B.astype(np.uint64), counts, mix_words(keys_B))
    places = _feistel(places, low, high, keys_B)
    outside = np.flatnonzero(places >= counts)
    while len(outside):
        places[outside] = _feistel(places[outside], low[outside], high[outside], keys_B[outside])
        outside = outside[places[outside] >= counts[outside]]
    return _rotated(places, counts, mix_words(keys_B + _GAMMA)).astype(np.int64)


def _rotated(places_B: Words, counts_B: Words, words_B: Words) -> Words:
    places_B = places_B + _below(words_B, counts_B)
    places_B -= counts_B * (places_B >= counts_B)
    return places_B


def _below(words_B: Words, counts_B: Words) -> Words:
    """A number from 0 to below the count, from the upper half of each word."""
    return ((words_B >> _HALF) * counts_B) >> _HALF


def _feistel(places_B: Words, low_B: Words, high_B: Words, keys_B: Words) -> Words:
    """A permutation of the numbers below ``low * high``: each round adds a hash of one digit to the other."""
    right_B, left_B = np.divmod(places_B, low_B)
    round_keys_B = keys_B
    for _ in range(_ROUNDS):
        round_keys_B = round_keys_B + _GAMMA
        words_B = (right_B + round_keys_B) * _MIX_1
        words_B ^= words_B >> _HALF
        words_B *= _MIX_2
        left_B = left_B + _below(words_B, low_B)
        left_B -= low_B * (left_B >= low_B)
        left_B, right_B, low_B, high_B = right_B, left_B, high_B, low_B
    return right_B * low_B + left_B
