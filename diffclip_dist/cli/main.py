"""The command ``diffclip``. Each of its subcommands is also a script, launch/NAME.py.

What a subcommand takes is in cli/options/NAME.py, which imports little, so that ``--help`` answers at once; what it
does is in cli/NAME.py, which is imported after the command line has been read.
"""

import importlib
import sys
from collections.abc import Sequence
from types import MappingProxyType
from typing import Final

import diffclip_dist
from diffclip_dist.cli.benchmark import BENCHMARKS, replace_with_benchmark
from diffclip_dist.cli.command_parser import CommandParser
from diffclip_dist.cli.commandline import EXIT_BAD_INPUT, EXIT_DONE, end_at_once, run_command
from shards.nearest import did_you_mean

COMMANDS: Final = MappingProxyType(
    {
        "shard": "scenes into an archive; or check or draw an archive",
        "pretrain": "an encoder from an archive's unlabelled scenes",
        "fewshot": "classifiers from a few labelled pixels a class, with figures and a report",
        "predict": "a map of a whole scene from a classifier",
        "stac": "a STAC item of an archive's scene or of a map, for catalogues",
        "textbank": "vectors of class names by a CLIP model, to use where it cannot be had",
        "export": "an encoder as an ONNX graph, for programs without PyTorch",
        "doctor": "whether this machine can pretrain, and what to do where it cannot",
        "status": "how a pretraining run is",
        "schema": "the JSON Schema of scene.yaml or of manifest.json, for editors",
        "completion": "a script for bash, zsh or fish that completes commands and options",
    }
)


def main() -> int:
    """What ``diffclip COMMAND ...`` runs."""
    return run_command(lambda: _dispatch(sys.argv[1:]))


def script_main(name: str) -> int:
    """What ``launch/NAME.py`` runs: the subcommand of that name."""
    return run_command(lambda: _run(name, f"{name}.py", sys.argv[1:]))


def _dispatch(words: Sequence[str]) -> int:
    name, *rest = words or [""]
    if name in COMMANDS:
        return _run(name, f"diffclip {name}", rest)
    if name == "benchmark":
        return replace_with_benchmark(rest)
    if name == "--version":
        print(f"diffclip {diffclip_dist.__version__}")
        return EXIT_DONE
    if name in ("", "-h", "--help"):
        print(_usage(), file=sys.stderr if name == "" else sys.stdout)
        return EXIT_BAD_INPUT if name == "" else EXIT_DONE
    known = [*COMMANDS, "benchmark"]
    print(f"error: {name}: no such command{did_you_mean(name, known)} (see diffclip --help)", file=sys.stderr)
    return EXIT_BAD_INPUT


def _usage() -> str:
    commands = {**COMMANDS, "benchmark": f"a measurement: {', '.join(BENCHMARKS)}"}
    return "\n".join(
        [
            "usage: diffclip COMMAND ...",
            "",
            *(f"  {name:<10} {said}" for name, said in commands.items()),
            "",
            "diffclip COMMAND --help names a command's options; diffclip --version the version.",
        ]
    )


def _run(name: str, prog: str, words: Sequence[str]) -> int:
    with end_at_once():
        options = importlib.import_module(f"diffclip_dist.cli.options.{name}")
        parser = CommandParser(prog, options.__doc__)
        options.add_options(parser)
        arguments = parser.parse_args(words)
        command = importlib.import_module(f"diffclip_dist.cli.{name}")
    status: int = command.run(arguments)
    return status
