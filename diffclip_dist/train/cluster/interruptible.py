"""Runs work in a thread of its own, so that a signal breaks into none of its calls.

Python raises what a signal's handler raises wherever the main thread is. In the middle of Ray's code that ends in a
trace of C++ or leaves processes behind. Where Ray runs in the main thread, it also sets handlers of its own.
"""

import signal
import threading
from collections.abc import Callable
from typing import Final

from shards.errors import Terminated

_LOOK_EVERY_S: Final = 0.1
_START_S: Final = 2.0  # in which a started thread runs


def run_interruptibly(work: Callable[[], None], on_signal: Callable[[], None]) -> None:
    """Runs the work and waits for it, also after a signal.

    Args:
        work: runs in another thread.
        on_signal: called in this thread at the first signal; it makes the work end soon. At a second one this function
            waits no longer.

    Raises:
        KeyboardInterrupt: after SIGINT, when the work has ended; its cause is what the work has raised, if anything.
        Terminated: after another signal, likewise.
        BaseException: what the work has raised.
    """
    fault: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        try:
            work()
        except BaseException as error:
            fault.append(error)
        finally:
            ended.set()

    try:
        threading.Thread(target=run, daemon=True).start()
        _wait(ended)
    except (KeyboardInterrupt, Terminated) as stop:
        if begun.wait(_START_S):  # else the signal came before the thread
            on_signal()
            _wait(ended)
        raise stop from next(iter(fault), None)
    if fault:
        raise fault[0]


def _wait(ended: threading.Event) -> None:
    # not by Thread.join: an exception in the middle of it makes Python 3.11 believe that the thread has ended
    while not ended.wait(_LOOK_EVERY_S):
        _put_handler_back()


def _put_handler_back() -> None:
    """Puts Python's handler of SIGTERM back: Ray's core replaces it by one that prints a trace of C++ and aborts."""
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
