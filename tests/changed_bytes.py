"""Files as damage or a stranger may leave them."""

import numpy as np


def changed_bytes(whole: bytes, rng: np.random.Generator, within: int | None = None) -> bytes:
    """Some bytes with one to three of them overwritten, cut out or put in, among the first `within` (None: all)."""
    content = bytearray(whole)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) if within is None else min(len(content), within)))
        match rng.integers(3):
            case 0:
                content[place] = int(rng.integers(256))
            case 1:
                del content[place : place + int(rng.integers(1, 50))]
            case _:
                content[place:place] = rng.bytes(int(rng.integers(1, 9)))
    return bytes(content)
