"""Pretrains the shared encoder on an archive's unlabelled scenes, with Ray Train and DeepSpeed.

Joins the Ray cluster it is submitted to (``ray job submit -- python launch/pretrain.py``); run by itself it starts a
local one and stops it at the end.
"""

import argparse
from dataclasses import MISSING, fields
from pathlib import Path

from diffclip_dist.train.cluster.driver import check_run_dir, pretrain
from diffclip_dist.train.dry_run import describe, plan_run
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from shards.build.default_archive import ensure_generated_archive


def parse_arguments() -> argparse.Namespace:
    defaults = {field.name: field.default for field in fields(PretrainConfig) if field.default is not MISSING}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--archive", help=f"archive to pretrain on ({defaults['archive']}: a generated scene, built if absent)"
    )
    parser.add_argument("--run-dir", help=f"folder for the run's files ({defaults['run_dir']})")
    parser.add_argument("--config", type=Path, help="YAML file of settings, such as a run's config.yaml")
    parser.add_argument("--workers", type=int, help=f"Ray Train workers, one a GPU ({defaults['workers']})")
    parser.add_argument("--zero-stage", type=int, choices=(0, 1, 2, 3), help=f"ZeRO stage ({defaults['zero_stage']})")
    parser.add_argument("--steps", type=int, help=f"optimizer steps ({defaults['steps']})")
    parser.add_argument(
        "--global-batch", type=int, help=f"windows a step over all workers ({defaults['global_batch']})"
    )
    parser.add_argument("--seed", type=int, help=f"of every random draw ({defaults['seed']})")
    parser.add_argument("--log-every", type=int, help=f"steps between logged steps ({defaults['log_every']})")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --run-dir")
    parser.add_argument(
        "--dry-run", action="store_true",
        help="print settings, parameters, memory by ZeRO stage, steps and an estimate of the time, and start nothing",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", dest="settings",
        help="any other setting, such as model.depth=6, or preset=published|base|large|huge for the model's sizes; "
        "the resolved ones are printed",
    )  # fmt: skip
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    given = {
        name: value
        for name in ("archive", "run_dir", "workers", "zero_stage", "steps", "global_batch", "seed", "log_every")
        if (value := getattr(arguments, name)) is not None
    }
    config = resolve_config(arguments.config, given, arguments.settings)
    print(config.to_yaml())
    if arguments.dry_run:
        check_run_dir(config, arguments.resume)
        print(describe(plan_run(config)))
        return 0
    ensure_generated_archive(config.archive)
    encoder = pretrain(config, arguments.resume)
    print(f"encoder: {encoder}")
    return 0
