"""``diffclip benchmark NAME ...``: runs benchmarks/NAME.py, as ``python benchmarks/NAME.py ...`` does."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

import diffclip_dist
from diffclip_dist.cli.commandline import EXIT_BAD_INPUT, EXIT_DONE
from shards.errors import BadInput
from shards.nearest import did_you_mean

BENCHMARKS: Final = MappingProxyType(
    {
        "throughput": "samples a second of pretraining",
        "training_step": "a training step and its parts, beside the published step in plain torch",
        "scaling": "time and memory of several workers, and the cost model",
        "archive_io": "reading, building and restarting archives",
        "accuracy": "accuracy on scenes beside classical classifiers",
        "reproduce": "the paper's table: its three sets, its protocol, beside alignment alone",
        "prediction": "pixels a second and memory of mapping",
        "names_alone": "accuracy from class names alone, without a labelled pixel",
        "many_scenes": "what pretraining over many scenes brings, beside random weights",
        "another_scene": "accuracy on another scene, by its class priors and by those of the shots' scene",
        "coverage": "accuracy where a modality covers a part of the scene, with and without unlabelled pixels",
    }
)


def replace_with_benchmark(words: Sequence[str]) -> int:
    """Replaces this process by the benchmark's; returns only where it starts none."""
    name, *rest = words or [""]
    if name in BENCHMARKS:
        script = str(benchmarks_folder() / f"{name}.py")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, script, *rest])  # noqa: S606  our own script, no shell
    if name in ("", "-h", "--help"):
        lines = ["usage: diffclip benchmark NAME ...", "", *(f"  {one:<14} {said}" for one, said in BENCHMARKS.items())]
        print("\n".join(lines), file=sys.stderr if name == "" else sys.stdout)
        return EXIT_BAD_INPUT if name == "" else EXIT_DONE
    raise BadInput(f"{name}: no such benchmark{did_you_mean(name, BENCHMARKS)} (see diffclip benchmark --help)")


def benchmarks_folder() -> Path:
    """Where the benchmarks lie: inside the installed package, or beside it in a checkout.

    Raises:
        BadInput: they are in neither place.
    """
    package = Path(diffclip_dist.__file__).resolve().parent
    for folder in (package / "benchmarks", package.parent / "benchmarks"):
        if folder.is_dir():
            return folder
    raise BadInput(f"{package}: expected a folder benchmarks in it or beside it; install diffclip-dist anew")
