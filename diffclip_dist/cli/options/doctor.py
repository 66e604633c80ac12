"""Whether this machine can pretrain: libraries, GPUs, compiler, build locks, Ray, and what a planned run needs.

Starts nothing and leaves nothing. Each line that would stop a run says STOP and what to do; one of them makes the exit
status 1. --archive, --run-dir, --config and --set are those of the run that is planned.
"""

import argparse
from pathlib import Path

from diffclip_dist.train.pretrain_config import PretrainConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    default = PretrainConfig()
    parser.add_argument("--archive", help="archive to pretrain on (archive and memory are not looked at)")
    parser.add_argument("--run-dir", metavar="DIR", help=f"folder for the run's files ({default.run_dir})")
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file of settings, as in pretrain (none)")
    parser.add_argument("--workers", type=int, metavar="N", help=f"workers, one a GPU ({default.workers})")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="any other setting, such as preset=large or zero_stage=3; may be given again",
    )  # fmt: skip
