"""How a pretraining run is."""

import argparse

from diffclip_dist.cli.commandline import EXIT_DONE, EXIT_FAILED
from diffclip_dist.train.monitor.run_status import describe_status, run_status


def run(arguments: argparse.Namespace) -> int:
    """Prints the status; 1 where the run has a problem."""
    status = run_status(arguments.run)
    print(describe_status(status))
    return EXIT_FAILED if status.problems else EXIT_DONE
