"""Errors that are not faults of the code. The commands answer each kind with its own exit status."""


class BadInput(ValueError):
    """A file, a field or an option cannot be used. Commands exit with status 2.

    The message is one line that names the file, the field and what was expected.
    """


class DamagedArchive(RuntimeError):
    """An archive does not match its manifest.

    Args:
        archive: location of the archive.
        faults: one line per damaged file, each naming the file and the fault.
    """

    def __init__(self, archive: str, faults: tuple[str, ...]) -> None:
        self.archive = archive
        self.faults = faults
        super().__init__(f"{archive}: damaged: " + "; ".join(faults))

    def __reduce__(self) -> tuple[type["DamagedArchive"], tuple[str, tuple[str, ...]]]:
        """Keeps both fields when a worker sends the error to the driver."""
        return DamagedArchive, (self.archive, self.faults)


class Terminated(BaseException):
    """A signal other than Ctrl-C's asks the process to end: what was started is stopped, what was half-written removed.

    Args:
        signal: number of the signal.
        message: what the user is told besides.
    """

    def __init__(self, signal: int, message: str = "") -> None:
        self.signal = signal
        super().__init__(message)


class FailedRun(RuntimeError):
    """A run started and could not finish. Commands exit with status 1. The message is one line."""
