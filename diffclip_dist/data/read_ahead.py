"""Works out the items of an iterator in a thread of their own, ahead of whoever takes them."""

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Final, TypeVar

Item = TypeVar("Item")

# a thread that waits for a network goes on for so long after its items are no longer wanted, and is then left alone
_SECONDS_TO_END: Final = 5.0


@dataclass(frozen=True)
class _End:
    """What follows the last item: the error that ended the iterator, if one did."""

    error: BaseException | None = None


def read_ahead(items: Iterator[Item], most: int) -> Generator[Item]:
    """The same items in the same order, of which at most so many wait to be taken.

    The thread starts with the first item that is asked for. An error of the iterator is raised where its item would
    have come. Closing the returned generator ends the thread.

    Args:
        items: whose work is done in the thread.
        most: at least 1.
    """
    waiting: Queue[Item | _End] = Queue(most)
    unwanted = threading.Event()

    def work() -> None:
        try:
            for item in items:
                waiting.put(item)
                if unwanted.is_set():
                    return
            waiting.put(_End())
        except BaseException as error:  # whoever takes the items decides
            waiting.put(_End(error))

    # a daemon, so that a process that is ended does not wait for it
    thread = threading.Thread(target=work, name="read-ahead", daemon=True)
    thread.start()
    try:
        while not isinstance(item := waiting.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        unwanted.set()
        _empty(waiting)  # makes place for the item that the thread may hold; it then sees that it is to end
        thread.join(_SECONDS_TO_END)


def _empty(waiting: Queue[Item | _End]) -> None:
    while True:
        try:
            waiting.get_nowait()
        except Empty:
            return
