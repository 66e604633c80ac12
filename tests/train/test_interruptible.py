"""Work in a thread is waited for after a signal, and its own fault is not lost."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from diffclip_dist.cli.commandline import run_command
from diffclip_dist.train.cluster.interruptible import run_interruptibly


def ending_when_asked(seen: list[str], fault: Exception | None) -> tuple[Callable[[], None], Callable[[], None]]:
    """Work that sends this process a signal and ends when it is asked to, and what asks it."""
    asked = threading.Event()

    def work() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked.wait(20)
        threading.Event().wait(0.5)  # what is done in between must be waited for
        seen.append("ended")
        if fault is not None:
            raise fault

    return work, asked.set


@pytest.mark.parametrize(("fault", "said"), [(None, "terminated: None\n"), (OSError("full"), "terminated: full\n")])
def test_work_ends_before_the_signal_is_raised(
    fault: Exception | None, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []
    work, ask = ending_when_asked(seen, fault)

    def main() -> int:
        try:
            run_interruptibly(work, ask)
        except BaseException as stop:
            assert seen == ["ended"]
            stop.args = (str(stop.__cause__),)
            raise
        return 0

    assert run_command(main) == 143
    assert capsys.readouterr().err == said


def test_a_fault_without_a_signal_is_raised() -> None:
    def work() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run_interruptibly(work, lambda: None)
