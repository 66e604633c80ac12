"""A command line that answers a misspelt option with the nearest one, in one line."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from diffclip_dist.cli.commandline import EXIT_BAD_INPUT
from shards.nearest import did_you_mean


class CommandParser(argparse.ArgumentParser):
    """argparse without abbreviations, whose errors are one line each.

    Args:
        prog: the command as the user typed it, such as ``diffclip shard`` or ``shard.py``.
        description: what the command does.
    """

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Looks for misspelt options first: argparse would complain about the option that they leave out."""
        words = sys.argv[1:] if args is None else list(args)
        options = self._option_string_actions
        for word in words[: words.index("--")] if "--" in words else words:
            name = word.partition("=")[0]
            if name.startswith("--") and name not in options:
                self.error(f"{name}: no such option{did_you_mean(name, options)}")
        return super().parse_known_args(words, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Says how several numbers are written, where they come with spaces between."""
        words = sys.argv[1:] if args is None else list(args)
        parsed, left = self.parse_known_args(words, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}{self._with_commas(words, left)}")
        return parsed

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Names the nearest choice of one that does not exist."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            meant = did_you_mean(str(value), known)
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} (choose from {', '.join(known)}){meant}")

    def _with_commas(self, words: Sequence[str], left: Sequence[str]) -> str:
        """The end of a message on numbers that an option of text has after its value, as in ``--shots 1 2 5``."""
        for place, name in enumerate(words):
            action = self._option_string_actions.get(name)
            values = words[place + 1 : place + 2 + len(left)]
            numbers = all(value.replace(",", "").isdigit() for value in values)
            if action is not None and action.type is None and list(values[1:]) == list(left) and numbers:
                return f"; several numbers have commas between: {name} {','.join(one.strip(',') for one in values)}"
        return ""

    def error(self, message: str) -> NoReturn:
        """Ends the command with status 2 and one line."""
        self.exit(EXIT_BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")
