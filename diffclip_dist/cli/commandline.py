"""What every command shares: exit statuses, one-line errors and a clean end on SIGINT, SIGTERM and SIGUSR1."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shards.errors import BadInput, DamagedArchive, FailedRun, Terminated
from shards.extras import missing_extra

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

# Ctrl-C; what schedulers send at the end of the time, or before it (Slurm: --signal=USR1@90)
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def _raise(number: int, _frame: FrameType | None) -> None:
    """Raises the signal as an exception, so that what was started is stopped and what was half-written is removed."""
    signal.signal(signal.SIGINT, end_process)  # a second Ctrl-C waits for nothing
    for other in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(other, signal.SIG_IGN)  # the process is ending already
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise Terminated(number)


def end_process(number: int, _frame: FrameType | None) -> None:
    """Handles a signal while nothing has begun, or nothing more is waited for."""
    os.write(2, f"{_said(number)}\n".encode())
    os._exit(128 + number)


@contextmanager
def end_at_once() -> Iterator[None]:
    """While libraries are imported, a signal ends the process at once: nothing has begun, so nothing is to be undone.

    An exception raised in the middle of an import would reach the user as another one, with a traceback.
    """
    before = {number: signal.signal(number, end_process) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _said(number: int) -> str:
    return {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}.get(
        signal.Signals(number), "stopped by SIGUSR1"
    )


def run_command(main: Callable[[], int]) -> int:
    """Runs a command's body and turns what it raises into the exit status that users rely on.

    Args:
        main: the command's body; it returns its own exit status.

    Returns:
        0 done, 1 a failed run, 2 bad input (one line on standard error), 130 after SIGINT, 143 after SIGTERM, 138 after
        SIGUSR1. Any other exception is a fault of ours and keeps its traceback, which Python ends with status 1.
    """
    for number in _ENDING:
        signal.signal(number, _raise)
    try:
        return main()
    except (BadInput, DamagedArchive) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        print(f"error: {missing}", file=sys.stderr)
        return EXIT_BAD_INPUT
    except FailedRun as error:
        print(f"failed: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt as interrupt:
        return _ended_by(signal.SIGINT, str(interrupt))
    except Terminated as stop:
        return _ended_by(stop.signal, str(stop))
    finally:
        for number in _ENDING:
            signal.signal(number, end_process)


def _ended_by(number: int, message: str) -> int:
    print(f"{_said(number)}{': ' * bool(message)}{message}", file=sys.stderr)
    return 128 + number
