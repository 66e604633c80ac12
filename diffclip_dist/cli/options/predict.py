"""Maps a whole scene: MAP.tif with CRS, transform, colour table and class names, and MAP.png.

A map that was interrupted goes on when the same command is given again: finished blocks are kept beside it until it is
whole. Other inputs or options start anew.
"""

import argparse
from pathlib import Path

from diffclip_dist.cli.options.log_format import add_log_format
from diffclip_dist.cli.options.scene_match import add_match_options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="DIR",
        help="a classifier's folder, as the command fewshot writes it",
    )
    parser.add_argument("--archive", required=True, help="archive with the scene: a folder or a URL")
    parser.add_argument("--scene", required=True, metavar="NAME", help="scene of the archive; it needs no labels")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="MAP.tif", help="the map to write; its picture goes beside it"
    )
    parser.add_argument(
        "--probabilities",
        action="store_true",
        help="also write MAP_probabilities.tif: a band a class, and last the confidence, which is the highest of "
        "them; in percent, calibrated on the shots where there are enough (off)",
    )
    parser.add_argument(
        "--unsure",
        type=float,
        metavar="THRESHOLD",
        help="give the class unsure, grey, to pixels whose class is less probable than this, 0 to 1 (off)",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that map at once, each on one core, or on its share of the GPUs, in about 1 GB of memory; more "
        "than 1 are Ray tasks, on this machine or on the cluster of RAY_ADDRESS; their number does not change the map "
        "(1)",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an earlier map in --out, once the new one is whole (off)"
    )
    add_match_options(parser, "classifier")
    parser.add_argument(
        "--keep-priors", action="store_true",
        help="with the kernel head: keep class frequencies and class means of the scene that the classifier was fitted "
        "in (off: those of another scene are estimated from its unlabelled pixels)",
    )  # fmt: skip
    parser.add_argument(
        "--also", metavar="NAME[,NAME..]",
        help="map more classes, found by their names alone, with a classifier whose class names act (none)",
    )  # fmt: skip
    parser.add_argument(
        "--quick", action="store_true", help="map only as many rows as take some seconds, not the whole scene (off)"
    )
    add_log_format(parser)
