"""Pretrains the shared encoder on an archive's unlabelled scenes, with Ray Train and DeepSpeed."""

import argparse
from dataclasses import asdict
from pathlib import Path

import torch

from diffclip_dist.log_lines import log, start_log
from diffclip_dist.train.cluster.driver import check_run_dir, pretrain, with_recorded_choices
from diffclip_dist.train.dry_run import describe, estimate_run, figures
from diffclip_dist.train.plan import plan_run
from diffclip_dist.train.precision import with_chosen_precision
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.zero_stage import with_stage_for_this_machine
from shards.build.default_archive import ensure_generated_archive, known_archive


def run(arguments: argparse.Namespace) -> int:
    """Pretrains, or prints what a run would be."""
    given = {
        name: value
        for name in (
            "archive",
            "run_dir",
            "workers",
            "zero_stage",
            "steps",
            "global_batch",
            "seed",
            "log_every",
            "log_format",
        )
        if (value := getattr(arguments, name)) is not None
    }
    config = resolve_config(arguments.config, given, arguments.settings)
    if arguments.resume:
        config = with_recorded_choices(config)
    if config.log_format == "plain":
        print(config.to_yaml())
    else:
        start_log("json", "stdout", run=Path(config.run_dir).name)
        log("settings", settings=asdict(config))
    if arguments.dry_run:
        check_run_dir(config, arguments.resume)
        here = with_chosen_precision(config, on_gpus=torch.cuda.is_available())
        estimate = estimate_run(with_stage_for_this_machine(plan_run(here, known_archive(here.archive))))
        if config.log_format == "plain":
            print(describe(estimate))
        else:
            log("dry run", **figures(estimate))
        return 0
    ensure_generated_archive(config.archive)
    encoder = pretrain(config, arguments.resume)
    if config.log_format == "plain":
        print(f"encoder: {encoder}")
    else:
        log(f"encoder: {encoder}", encoder=encoder)
    return 0
