"""Vectors of class names and of the materials' captions by a CLIP model, as a file that needs no model.

Where there is a network, or a CLIP model: write the bank there and carry it over. Two files: FILE.npy (texts, width),
and beside it FILE.json with the texts and the name of the model. fewshot.py --text bank:FILE.npy takes it.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument(
        "--text", required=True, metavar="open_clip:MODEL[:PRETRAINED]",
        help="the model: PRETRAINED is a tag of open_clip or a checkpoint file, MODEL may be local-dir:FOLDER; MODEL "
        "alone has random weights, and the bank says so",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npy", help="the file to write")
    parser.add_argument(
        "--archive", action="append", default=[], metavar="ARCHIVE",
        help="an archive whose class names and descriptions the bank gets; may be repeated (none)",
    )  # fmt: skip
    parser.add_argument("--names", default="", metavar="NAME,...", help="more class names (none)")
