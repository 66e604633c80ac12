"""What every command shares: exit statuses, one-line errors and a clean end on SIGINT and SIGTERM."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shards.errors import BadInput, DamagedArchive, FailedRun
from shards.extras import missing_extra

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class _Terminated(BaseException):
    """SIGTERM as an exception, so that what was started is stopped and what was half-written is removed."""


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise _Terminated


@contextmanager
def end_at_once() -> Iterator[None]:
    """While libraries are imported, SIGINT ends the process at once: nothing has begun, so nothing is to be undone.

    An exception raised in the middle of an import would reach the user as another one, with a traceback.
    """

    def end(_signal: int, _frame: FrameType | None) -> None:
        os.write(2, b"interrupted\n")
        os._exit(EXIT_INTERRUPTED)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_command(main: Callable[[], int]) -> int:
    """Runs a command's body and turns what it raises into the exit status that users rely on.

    Args:
        main: the command's body; it returns its own exit status.

    Returns:
        0 done, 1 a failed run, 2 bad input (one line on standard error), 130 after SIGINT, 143 after SIGTERM. Any
        other exception is a fault of ours and keeps its traceback, which Python ends with status 1.
    """
    signal.signal(signal.SIGTERM, _terminate)
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
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except _Terminated:
        print("terminated", file=sys.stderr)
        return EXIT_TERMINATED
