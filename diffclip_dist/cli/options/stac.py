"""A STAC item of an archive's scene, or of a map with the files beside it, for catalogues.

It has the footprint in longitude and latitude, the CRS, bands with wavelengths, and classes. STAC wants to know when a
scene was taken, which neither an archive nor a map says.
"""

import argparse
from pathlib import Path


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("place", metavar="ARCHIVE|MAP.tif", help="an archive's folder or URL, or a map")
    parser.add_argument(
        "--datetime",
        required=True,
        metavar="TIME",
        help="when the scene was taken, such as 2022-07-24T10:15:00Z, or START/END",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="ITEM.json", help="the file to write")
    parser.add_argument("--scene", metavar="NAME", help="scene of the archive (its only one)")
