"""Lines of a log: plain, or a JSON object each. A command says which, and where they go.

Plain lines on a terminal are the message alone; elsewhere they begin with the time, the run and, where they are of
one, the rank and the step.
"""

import json
import logging
import sys
from datetime import datetime
from typing import Any, Final, Literal

LogFormat = Literal["plain", "json"]
Output = Literal["stdout", "stderr"]

_LOGGER: Final = logging.getLogger("diffclip_dist.log")
_FIELDS: Final = "diffclip_fields"


def start_log(log_format: LogFormat, output: Output, **context: str | int) -> None:
    """From here on this process logs in that form.

    Args:
        log_format: ``plain`` or ``json``.
        output: where to.
        context: fields of every line, such as ``run``.
    """
    _HANDLER.output = output
    _HANDLER.setFormatter(LineFormatter(log_format, context))


def log(message: str, level: int = logging.INFO, **fields: Any) -> None:
    """Logs a line.

    Args:
        message: for people, complete without the fields.
        level: of the standard library's logging.
        fields: for programs; ``rank`` and ``step`` also stand in a plain line.
    """
    _LOGGER.log(level, message, extra={_FIELDS: fields})


def log_error(kind: str, message: str) -> None:
    """The last line of a command that fails; in plain form ``KIND: MESSAGE`` on standard error."""
    if _HANDLER.is_json:
        log(message, logging.ERROR, kind=kind)
    else:
        print(f"{kind}: {message}", file=sys.stderr)


def cause_of(error: BaseException) -> str:
    """An exception's type and the first line of its message, which names the fault; others add advice."""
    lines = str(error).strip().splitlines()
    return ": ".join([type(error).__name__, *lines[:1]])


class LineFormatter(logging.Formatter):
    """A record as one line; a traceback follows a plain one, and is a field of JSON.

    Args:
        log_format: ``plain`` or ``json``.
        context: fields of every line.
        bare: whether a plain line is the message alone.
    """

    def __init__(self, log_format: LogFormat, context: dict[str, Any], bare: bool = False) -> None:
        super().__init__()
        self.log_format = log_format
        self.context = context
        self.bare = bare

    def format(self, record: logging.LogRecord) -> str:
        fields = {**self.context, **getattr(record, _FIELDS, {})}
        time = datetime.fromtimestamp(record.created).astimezone()
        message = record.getMessage()
        trace = self.formatException(record.exc_info) if record.exc_info else None
        if self.log_format == "json":
            line = {
                "time": time.isoformat(timespec="milliseconds"), "level": record.levelname.lower(),
                **fields, "message": message,
            }  # fmt: skip
            return json.dumps(line if trace is None else {**line, "traceback": trace}, default=str)
        if not self.bare:
            places = [f"{name} {fields[name]}" for name in ("rank", "step") if fields.get(name) is not None]
            run = [str(fields["run"])] if "run" in fields else []
            message = "  ".join([time.strftime("%Y-%m-%d %H:%M:%S"), *run, *places, message])
        return message if trace is None else f"{message}\n{trace}"


class _Lines(logging.Handler):
    """Writes to what standard output or standard error is at the time."""

    output: Output = "stdout"

    @property
    def is_json(self) -> bool:
        """Whether lines are JSON."""
        return isinstance(self.formatter, LineFormatter) and self.formatter.log_format == "json"

    def emit(self, record: logging.LogRecord) -> None:
        stream = getattr(sys, self.output)
        formatter = self.formatter
        assert isinstance(formatter, LineFormatter)
        formatter.bare = stream.isatty()
        print(self.format(record), file=stream, flush=True)


_HANDLER: Final = _Lines()
_HANDLER.setFormatter(LineFormatter("plain", {}))
_LOGGER.addHandler(_HANDLER)
_LOGGER.setLevel(logging.INFO)
_LOGGER.propagate = False
