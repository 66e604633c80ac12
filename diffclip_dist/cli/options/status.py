"""How far a pretraining run is, how fast, whether it is well, what is saved of it, and the time left.

Reads the run's folder alone, so it works while the run goes on and after it has ended. Ends with status 1 where
something is wrong.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("run", type=Path, metavar="RUN", help="the run's folder, which --run-dir named")
