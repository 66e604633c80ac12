"""Turns scenes into an archive: a Zarr v3 scene each, WebDataset tiles with a halo, and a manifest.

--verify checks an archive instead, and --preview draws one.
"""

import argparse

from diffclip_dist.cli.options.log_format import add_log_format
from shards.archive.tiling import ArchiveSettings


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    defaults = ArchiveSettings()
    parser.add_argument(
        "scenes", metavar="SCENE", nargs="*",
        help="a scene.yaml, a folder with one, `synthetic`, or the name of a public set such as houston2013",
    )  # fmt: skip
    parser.add_argument(
        "--out", metavar="ARCHIVE",
        help="the archive to write: a folder, or a URL such as s3://bucket/name; with --preview the folder of the "
        "pictures (ARCHIVE-preview)",
    )  # fmt: skip
    parser.add_argument(
        "--tile-size", type=int, default=defaults.tile_size, metavar="PIXELS",
        help="side of a tile in pixels (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--halo", type=int, default=defaults.halo, metavar="PIXELS",
        help="pixels around each tile; windows of up to 2*halo+1 pixels fit (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--samples-per-shard", type=int, default=defaults.samples_per_shard, metavar="N",
        help="at most so many tiles in one tar (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--memory-mb", type=int, default=defaults.memory_mb, metavar="MB",
        help="megabytes that a worker may take for pixels (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N",
        help="shards built at the same time; more than 1 need Ray (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--add", action="store_true", help="add the scenes to an archive that exists (off)")
    parser.add_argument(
        "--keep-bits", type=int, metavar="BITS",
        help="bits of the mantissa that floats keep, 1 to 52 (all: lossless)",
    )  # fmt: skip
    add_log_format(parser)
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--verify", metavar="ARCHIVE", help="check every byte of an archive instead")
    other.add_argument("--preview", metavar="ARCHIVE", help="draw each scene of an archive as PNG instead")
