"""The command ``diffclip completion``: shtab writes the script from the parsers that the commands use."""

import argparse
import importlib
from pathlib import Path
from typing import Final

import shtab

from diffclip_dist.cli.benchmark import BENCHMARKS
from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.cli.main import COMMANDS

# options and arguments that name a file or a folder, where their type does not say so
_PLACES: Final = {"archive", "encoder", "out", "run_dir", "scenes", "verify", "preview"}


def run(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    print(shtab.complete(_whole_parser(), shell=arguments.shell))
    return EXIT_DONE


def _whole_parser() -> argparse.ArgumentParser:
    """All commands as subcommands of one parser, which `main` does without so that help answers at once."""
    parser = argparse.ArgumentParser(prog="diffclip")
    parser.add_argument("--version", action="version", version="")
    commands = parser.add_subparsers()
    for name, said in COMMANDS.items():
        command = commands.add_parser(name, help=said, description=said)
        importlib.import_module(f"diffclip_dist.cli.options.{name}").add_options(command)
        for action in command._actions:
            if action.nargs != 0 and (action.type is Path or action.dest in _PLACES):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    commands.add_parser("benchmark", help="a measurement").add_argument("name", choices=tuple(BENCHMARKS))
    return parser
