"""Faults of the network between this machine and an object store, whichever library reports them."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

from shards.errors import FailedRun

# libraries that fsspec's file systems speak through; many of their errors are no OSError
_LIBRARIES: Final = frozenset(
    {"aiohttp", "aiobotocore", "botocore", "requests", "urllib3", "httpx", "http", "google", "gcsfs", "azure", "adlfs"}
)
_WAITS_S: Final = (0.5, 1.0, 2.0)  # before the next try

Result = TypeVar("Result")


class Unreachable(FailedRun, OSError):
    """An object store did not answer, or broke the connection, in every try."""


def is_network_fault(error: BaseException) -> bool:
    """Whether an error comes from the network and may pass, unlike a missing file or a refused access."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        return False
    if isinstance(error, (ConnectionError, TimeoutError, Unreachable)):
        return True
    return any(kind.__module__.partition(".")[0] in _LIBRARIES for kind in type(error).__mro__)


def unreachable(place: str, error: BaseException) -> Unreachable:
    """The one line that a user gets for a network fault."""
    if isinstance(error, Unreachable):
        return error
    reason = " ".join(str(error).split()) or type(error).__name__
    return Unreachable(f"{place}: the object store cannot be reached: {reason}")


def with_retries(call: Callable[[], Result], place: str) -> Result:
    """The result of a call. It tries again after a network fault.

    Args:
        call: may be made twice without harm.
        place: the file or folder, for the message.

    Raises:
        Unreachable: the last try met a network fault too.
    """
    for wait_s in (*_WAITS_S, None):
        try:
            return call()
        except Exception as error:
            if not is_network_fault(error):
                raise
            if wait_s is None:
                raise unreachable(place, error) from error
            time.sleep(wait_s)
    raise AssertionError
