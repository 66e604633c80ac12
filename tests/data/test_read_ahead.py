"""Items that a thread works out ahead."""

import threading
from collections.abc import Iterator

import pytest

from diffclip_dist.data.read_ahead import read_ahead


def test_items_come_in_order_and_at_most_so_many_ahead() -> None:
    taken, ahead = 0, []

    def items() -> Iterator[int]:
        for number in range(100):
            ahead.append(number - taken)
            yield number

    for number in read_ahead(items(), 3):
        assert number == taken
        taken += 1
    assert taken == 100
    assert max(ahead) <= 5  # three that wait, the one in hand, and one that the thread has begun


def test_an_error_comes_where_its_item_would_have() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise OSError("damaged")

    ahead = read_ahead(items(), 8)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(OSError, match="damaged"):
        next(ahead)


def test_closing_ends_a_thread_that_waits_to_hand_on_an_item() -> None:
    begun = threading.Event()

    def items() -> Iterator[int]:
        for number in range(1000):
            if number == 2:
                begun.set()
            yield number

    ahead = read_ahead(items(), 1)
    next(ahead)
    assert begun.wait(10)
    ahead.close()
    assert not any(thread.name == "read-ahead" for thread in threading.enumerate())
