"""An encoder as an ONNX graph, for programs without PyTorch: features of windows by onnxruntime.

The graph is compared with PyTorch before the file gets its name: on whole windows, and on windows with missing pixels.
Needs the extra onnx.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("encoder", type=Path, metavar="ENCODER", help="the encoder's folder, such as RUN/encoder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.onnx", help="the file to write")
    parser.add_argument(
        "--archive",
        metavar="ARCHIVE",
        help="with --scene: for the modalities and bands of a scene (all of the encoder's)",
    )
    parser.add_argument("--scene", metavar="NAME", help="scene of the archive (none)")
