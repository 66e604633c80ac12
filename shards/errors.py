"""What can go wrong and is not a fault of the code, kept apart because the commands answer each differently."""


class BadInput(ValueError):
    """What the user gave cannot be used: a file, a field or an option. Commands exit with status 2.

    The message is one line that names the file, the field and what was expected.
    """


class DamagedArchive(RuntimeError):
    """An archive on disk is not what its manifest says.

    Args:
        archive: where the archive lies.
        faults: one line per damaged file, each naming the file and the fault.
    """

    def __init__(self, archive: str, faults: tuple[str, ...]) -> None:
        self.archive = archive
        self.faults = faults
        super().__init__(f"{archive}: damaged: " + "; ".join(faults))

    def __reduce__(self) -> tuple[type["DamagedArchive"], tuple[str, tuple[str, ...]]]:
        """A worker's fault reaches the driver as it is."""
        return DamagedArchive, (self.archive, self.faults)


class FailedRun(RuntimeError):
    """A run that started and could not be finished. Commands exit with status 1; the message is one line."""
