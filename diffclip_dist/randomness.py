"""Random draws as pure functions of a seed and a position.

A draw never touches global state: the same key gives the same numbers on any device, in any process, in any order of
calls. The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014, section 4) used as a counter-based hash.

Shapes: B samples, n numbers a sample.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

# imported where tensors are drawn: the settings of the order need none, and torch takes seconds to import
if TYPE_CHECKING:
    from torch import Tensor

_GAMMA: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
_WORD: Final = (1 << 64) - 1


def mix(word: int) -> int:
    """SplitMix64's finaliser on one unsigned 64-bit word."""
    word = ((word ^ (word >> 30)) * _MIX_1) & _WORD
    word = ((word ^ (word >> 27)) * _MIX_2) & _WORD
    return word ^ (word >> 31)


def mix_words(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64's finaliser on each word of an array."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_MIX_1)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_MIX_2)
    return words ^ (words >> np.uint64(31))


def word_keys(numbers: npt.NDArray[np.integer[Any]], *position: int) -> npt.NDArray[np.uint64]:
    """One unsigned 64-bit key a number, from a shared position and the number itself."""
    return mix_words(numbers.astype(np.uint64) * np.uint64(_GAMMA) + np.uint64(fold(*position)))


def fold(*position: int) -> int:
    """One unsigned 64-bit key from a seed and a position, such as ``fold(seed, epoch, tile)``.

    The order of the parts matters, and so does their number.
    """
    key = mix(len(position) * _GAMMA & _WORD)
    for part in position:
        key = mix((key + _GAMMA + mix(part & _WORD)) & _WORD)
    return key


def permutation(count: int, *position: int) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on the position alone.

    Sorts hashed counters rather than calling a library's shuffle, whose stream may change between releases.
    """
    return np.argsort(word_keys(np.arange(1, count + 1), *position), kind="stable")


def _signed(word: int) -> int:
    return word - (1 << 64) if word >= 1 << 63 else word


def _shift(words: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch shifts signed words arithmetically."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix_tensor(words: Tensor) -> Tensor:
    words = (words ^ _shift(words, 30)) * _signed(_MIX_1)
    words = (words ^ _shift(words, 27)) * _signed(_MIX_2)
    return words ^ _shift(words, 31)


def keys(positions_B: Tensor, *position: int) -> Tensor:
    """One int64 key a sample, from a shared position and each sample's own number.

    Args:
        positions_B: int64, what tells the samples apart (their place in the global batch).
        position: what they share: a seed, a step, a purpose.
    """
    base = _signed(fold(*position))
    return _mix_tensor(positions_B * _signed(_GAMMA) + base)


def _words(keys_B: Tensor, count: int) -> Tensor:
    import torch

    counters_n = torch.arange(1, count + 1, dtype=torch.int64, device=keys_B.device) * _signed(_GAMMA)
    return _mix_tensor(keys_B[:, None] + counters_n)


def integers(keys_B: Tensor, high: int) -> Tensor:
    """int64 (B,), uniform on 0 .. high - 1; the bias is below high / 2**62."""
    return _shift(_words(keys_B, 1)[:, 0], 2) % high


def uniform(keys_B: Tensor, count: int) -> Tensor:
    """float32 (B, n), uniform on [0, 1) in steps of 2**-24."""
    return _shift(_words(keys_B, count), 40).float() * 2.0**-24


def normal(keys_B: Tensor, count: int) -> Tensor:
    """float32 (B, n), standard normal by Box and Muller, two numbers a word; magnitudes stay below 6.7."""
    import torch

    words = _words(keys_B, (count + 1) // 2)
    radius = (_shift(words, 32).float() + 0.5) * 2.0**-32
    angle = (words & 0xFFFFFFFF).float() * (2.0 * math.pi * 2.0**-32)
    radius = torch.sqrt(-2.0 * torch.log(radius.clamp_max(1.0 - 2.0**-24)))
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)[:, :count]
