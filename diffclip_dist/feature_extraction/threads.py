"""Pieces of work in as many threads as torch may use, each computed by one of them.

Torch's own threads share one matrix product. For the small products here they mostly wait for each other. A piece that
one thread computes has the same bytes on any number of cores.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import Final, TypeVar

import torch

from diffclip_dist.feature_extraction.one_thread import one_thread

Piece = TypeVar("Piece")
Result = TypeVar("Result")

# Pieces that are computed or wait to be taken, for each thread
AHEAD: Final = 2


def in_threads(function: Callable[[Piece], Result], pieces: Iterable[Piece]) -> Iterator[Result]:
    """What a function gives for each piece, in their order, without gradients; a bounded number is computed ahead.

    Args:
        function: called in as many threads as torch may use here, and in each with one thread for torch.
        pieces: what it is called with.
    """
    threads = torch.get_num_threads()
    with one_thread():
        if threads == 1:
            for piece in pieces:
                yield _without_gradient(function, piece)
            return
        running: deque[Future[Result]] = deque()
        pool = _pool(threads)
        try:
            for piece in pieces:
                running.append(pool.submit(_without_gradient, function, piece))
                if len(running) > AHEAD * threads:
                    yield running.popleft().result()
            while running:
                yield running.popleft().result()
        finally:
            for left in running:
                left.cancel()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    """Made anew where the number changes, and kept: libraries hold memory for each thread that ever used them."""
    return ThreadPoolExecutor(threads, thread_name_prefix="pieces")


def _without_gradient(function: Callable[[Piece], Result], piece: Piece) -> Result:
    with torch.no_grad():  # holds in this thread alone
        return function(piece)
