"""The option --log-format of commands that show progress."""

import argparse
from typing import get_args

from diffclip_dist.log_lines import LogFormat


def add_log_format(parser: argparse.ArgumentParser) -> None:
    """Adds --log-format."""
    parser.add_argument(
        "--log-format", choices=get_args(LogFormat), default="plain",
        help="progress and errors on standard error: bars on a terminal and lines elsewhere, or json, an object a line "
        "(plain)",
    )  # fmt: skip
