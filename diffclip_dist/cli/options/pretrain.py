"""Pretrains the shared encoder on an archive's unlabelled scenes, with Ray Train and DeepSpeed.

Joins the Ray cluster that it is submitted to (`ray job submit -- python launch/pretrain.py`). Run by itself, it starts
a local one and stops it at the end. The defaults stand in brackets.
"""

import argparse
from pathlib import Path
from typing import get_args

from diffclip_dist.log_lines import LogFormat
from diffclip_dist.train.pretrain_config import STAGES, PretrainConfig


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes; an option left out is None, so that it does not hide a setting of --config."""
    default = PretrainConfig()
    parser.add_argument(
        "--archive", help=f"archive to pretrain on ({default.archive}: a generated scene, built if absent)"
    )
    parser.add_argument("--run-dir", metavar="DIR", help=f"folder for the run's files ({default.run_dir})")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="YAML file of settings, such as a run's config.yaml (none)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help=f"Ray Train workers, one a GPU ({default.workers})")
    parser.add_argument(
        "--zero-stage", type=_stage, choices=("auto", *STAGES),
        help="ZeRO stage; auto takes the lowest whose state fits a quarter of a worker's memory "
        f"({default.zero_stage})",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, metavar="N", help=f"optimizer steps ({default.steps})")
    parser.add_argument(
        "--global-batch", type=int, metavar="N", help=f"windows a step over all workers ({default.global_batch})"
    )
    parser.add_argument("--seed", type=int, metavar="N", help=f"seed of every random draw ({default.seed})")
    parser.add_argument("--log-every", type=int, metavar="N", help=f"steps between logged steps ({default.log_every})")
    parser.add_argument(
        "--log-format", choices=get_args(LogFormat),
        help=f"lines of the log: plain, or json, an object a line ({default.log_format})",
    )  # fmt: skip
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --run-dir (off)")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print settings, parameters, memory by ZeRO stage, steps and an estimate of the time; start nothing (off)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="any other setting, such as model.depth=6, or preset=published|base|large|huge for the model's sizes; may "
        "be given again; every setting is printed with its value",
    )  # fmt: skip


def _stage(text: str) -> str | int:
    return int(text) if text.isdecimal() else text
