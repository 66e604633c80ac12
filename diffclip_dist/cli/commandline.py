"""What every command shares: exit statuses, one-line errors and a clean end on SIGINT, SIGTERM and SIGUSR1."""

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from diffclip_dist.log_lines import cause_of, log_error
from shards.errors import BadInput, DamagedArchive, FailedRun, Terminated
from shards.extras import missing_extra

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2

# a full disk or quota, no permission, a disk that is broken or cannot be written
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EIO, errno.EROFS)

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
        SIGUSR1. What the machine refuses (no memory, a full disk) is a failed run. Any other exception is a fault of
        ours: its traceback comes before the line with its cause, and the status is 1.
    """
    for number in _ENDING:
        signal.signal(number, _raise)
    try:
        return main()
    except (BadInput, DamagedArchive) as error:
        log_error("error", " ".join(str(error).split()))
        return EXIT_BAD_INPUT
    except ImportError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        log_error("error", missing)
        return EXIT_BAD_INPUT
    except FailedRun as error:
        log_error("failed", " ".join(str(error).split()))
        return EXIT_FAILED
    except KeyboardInterrupt as interrupt:
        return _ended_by(signal.SIGINT, str(interrupt))
    except Terminated as stop:
        return _ended_by(stop.signal, str(stop))
    except Exception as error:
        if (refusal := _refusal(error)) is None:
            traceback.print_exc()
            refusal = f"{cause_of(error)} (a fault of this program; its traceback is above)"
        log_error("failed", refusal)
        return EXIT_FAILED
    finally:
        for number in _ENDING:
            signal.signal(number, end_process)


def _refusal(error: Exception) -> str | None:
    """What the machine has refused, in one line; None where the exception is a fault of ours."""
    if isinstance(error, OSError) and error.errno in _REFUSALS:
        return ": ".join(str(part) for part in (error.filename, error.strerror) if part)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory: {cause_of(error)}"
    return None


def _ended_by(number: int, message: str) -> int:
    if message:
        log_error(_said(number), message)
    else:
        print(_said(number), file=sys.stderr)
    return 128 + number
