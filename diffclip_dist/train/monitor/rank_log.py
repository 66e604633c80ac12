"""The log of each rank, ``RUN/logs/rank-NNNNN.log``: what it did, and the whole traceback of what it raised.

The terminal shows one line of cause instead of a traceback a rank.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from diffclip_dist.log_lines import LineFormatter, LogFormat, cause_of
from diffclip_dist.train.run_files import LOGS_FOLDER

_LOGGER: Final = logging.getLogger("diffclip_dist.rank")
_LOGGER.addHandler(logging.NullHandler())  # where a run has no ranks of its own, nothing is written
_LOGGER.setLevel(logging.INFO)
_LOGGER.propagate = False
_context: dict[str, Any] = {}


class RankFault(Exception):
    """What a rank has raised, in one line; the traceback is in its log."""


def rank_log_file(run_dir: Path, rank: int) -> Path:
    """The log of a rank."""
    return run_dir / LOGS_FOLDER / f"rank-{rank:05d}.log"


@contextmanager
def rank_log(run_dir: Path, rank: int, log_format: LogFormat) -> Iterator[None]:
    """Logs to the rank's file while the block runs.

    Raises:
        RankFault: the block has raised an exception.
    """
    file = rank_log_file(run_dir, rank)
    file.parent.mkdir(parents=True, exist_ok=True)
    _context.clear()
    _context.update(run=run_dir.name, rank=rank)
    handler = logging.FileHandler(file)
    handler.setFormatter(LineFormatter(log_format, _context))
    _LOGGER.addHandler(handler)
    try:
        yield
    except (Exception, SystemExit) as error:
        at = f"step {_context['step']}: " if "step" in _context else ""
        fault = f"{at}{cause_of(error)}"
        _LOGGER.exception("%s", fault)
        raise RankFault(fault) from None
    finally:
        _LOGGER.removeHandler(handler)
        handler.close()


def at_step(step: int) -> None:
    """From here on the rank takes this step, counted from 1."""
    _context["step"] = step


def log_of_rank(message: str) -> None:
    """Logs a line to the rank's file."""
    _LOGGER.info("%s", message)
