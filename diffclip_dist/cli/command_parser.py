"""A command line that answers a misspelt option with the nearest one, in one line."""

import argparse
import sys
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

    def error(self, message: str) -> NoReturn:
        """Ends the command with status 2 and one line."""
        self.exit(EXIT_BAD_INPUT, f"error: {message} (see {self.prog} --help)\n")
