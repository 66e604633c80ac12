"""From nothing to a land-cover map: shards a generated scene, pretrains on it as a Ray job, maps it from a few shots.

Starts a Ray head of its own on loopback, with token authentication, and stops only that one. Everything lies in demo/.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from diffclip_dist.cli.command_parser import CommandParser
from diffclip_dist.cli.commandline import run_command
from diffclip_dist.train.cluster.local_ray import local_ray_head, ray_command
from shards.errors import FailedRun

DEMO: Final = Path("demo")
# enough to see the loss fall and the map appear on two cores in minutes; far too short for figures worth quoting
PRETRAIN: Final = ("--steps", "200", "--global-batch", "128")


def step(title: str, *command: object, environment: Mapping[str, str] | None = None) -> None:
    """Runs one command as a user would type it, and says how long it took."""
    words = [str(word) for word in command]
    print(f"\n== {title}\n$ {' '.join(words)}", flush=True)
    start = time.monotonic()
    program = [sys.executable, *words[1:]] if words[0] == "python" else [ray_command(), *words[1:]]
    status = subprocess.run(program, env=environment, check=False).returncode  # noqa: S603 our own commands
    if status != 0:
        raise FailedRun(f"{' '.join(words)}: exit status {status}")
    print(f"({time.monotonic() - start:.0f} s)", flush=True)


def main() -> int:
    CommandParser("demo.py", __doc__).parse_args()
    shutil.rmtree(DEMO, ignore_errors=True)
    archive, run, fewshot = DEMO / "archive", DEMO / "run", DEMO / "fewshot"
    step("a generated scene into an archive", "python", "launch/shard.py", "synthetic", "--out", archive)
    with local_ray_head() as head:
        step(
            "pretraining on it, unlabelled, as a Ray job",
            "ray", "job", "submit", "--",
            "python", "launch/pretrain.py", "--archive", archive, "--run-dir", run, *PRETRAIN,
            environment=head.environment,
        )  # fmt: skip
    step(
        "land cover from class names alone, and from 1, 2 and 5 labelled pixels a class",
        "python", "launch/fewshot.py", "--archive", archive, "--encoder", run / "encoder", "--shots", "0,1,2,5",
        "--out", fewshot,
    )  # fmt: skip
    step(
        "the whole scene as a map",
        "python", "launch/predict.py", "--model", fewshot / "model-5shot", "--archive", archive,
        "--scene", "synthetic", "--out", DEMO / "map.tif",
    )  # fmt: skip
    print("\nThe scene is generated: its figures say nothing of real land cover.")
    for what, place in (
        ("map", DEMO / "map.png"),
        ("map for a GIS", DEMO / "map.tif"),
        ("report", fewshot / "report.html"),
        ("figures", fewshot / "results.json"),
        ("pretraining", run / "metrics.jsonl"),
        ("reconstruction", run / "reconstruction.png"),
        ("encoder", run / "encoder"),
        ("archive", archive),
    ):
        print(f"  {what:14} {place.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
