"""Whether this machine can pretrain."""

import argparse
from itertools import chain

from diffclip_dist.cli.commandline import EXIT_DONE, EXIT_FAILED
from diffclip_dist.train.doctor.finding import Finding
from diffclip_dist.train.doctor.machine import (
    check_build_locks,
    check_compiler,
    check_devices,
    check_libraries,
    check_ray,
)
from diffclip_dist.train.doctor.planned_run import check_place, check_planned_run
from diffclip_dist.train.pretrain_config import resolve_config


def run(arguments: argparse.Namespace) -> int:
    """Prints what was found; 1 where something would stop a run."""
    given = {
        name: value for name in ("archive", "run_dir", "workers") if (value := getattr(arguments, name)) is not None
    }
    config = resolve_config(arguments.config, given, arguments.settings)
    if arguments.archive is None and arguments.config is None:
        planned = chain(
            check_place("run_dir", config.run_dir, None),
            [Finding("archive", "not looked at, nor the memory", "note", "name the run's with --archive")],
        )
    else:
        planned = chain(check_planned_run(config))
    stopped = False
    for finding in chain(
        check_libraries(), check_devices(), [check_compiler()], check_build_locks(), check_ray(), planned
    ):
        print(finding, flush=True)
        stopped |= finding.weight == "stop"
    return EXIT_FAILED if stopped else EXIT_DONE
