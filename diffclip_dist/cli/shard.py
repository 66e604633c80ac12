"""Scenes into an archive that pretraining streams, and the check of an archive."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from diffclip_dist.cli.commandline import EXIT_DONE, EXIT_FAILED
from shards.archive.archive import Archive
from shards.archive.manifest import Manifest
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import Progress as SceneProgress
from shards.build.build_archive import build_archive
from shards.errors import BadInput, DamagedArchive
from shards.open_scene import open_scene
from shards.preview.preview import write_previews


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="shard.py",
        description="Turns scenes into an archive: a Zarr v3 scene each, WebDataset tiles with a halo, and a manifest.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ArchiveSettings()
    parser.add_argument(
        "scenes",
        metavar="SCENE",
        nargs="*",
        help="a scene.yaml, a folder with one, `synthetic`, or the name of a public set such as houston2013",
    )
    parser.add_argument(
        "--out", metavar="ARCHIVE", help="the archive to be made: a folder, or a URL such as s3://bucket/name"
    )
    parser.add_argument("--tile-size", type=int, default=defaults.tile_size, metavar="PIXELS", help="side of a tile")
    parser.add_argument(
        "--halo", type=int, default=defaults.halo, metavar="PIXELS", help="around each tile; windows up to 2*halo+1 fit"
    )
    parser.add_argument(
        "--samples-per-shard", type=int, default=defaults.samples_per_shard, metavar="N", help="most tiles in one tar"
    )
    parser.add_argument(
        "--memory-mb", type=int, default=defaults.memory_mb, metavar="MB", help="pixels held by a worker"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="shards built at once; more than 1 use Ray")
    parser.add_argument("--add", action="store_true", help="add the scenes to the archive that is there")
    parser.add_argument(
        "--keep-bits", type=int, metavar="BITS", help="round floats to so many bits of mantissa; lossless without"
    )
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--verify", metavar="ARCHIVE", help="check every byte of an archive instead")
    other.add_argument("--preview", metavar="ARCHIVE", help="draw each scene of an archive into --out as PNG instead")
    return parser.parse_args()


def main() -> int:
    """Builds or verifies, as the command line says."""
    arguments = parse_arguments()
    if arguments.verify is not None:
        if arguments.scenes or arguments.out is not None:
            raise BadInput("--verify: takes an archive alone, no scenes and no --out")
        return verify(arguments.verify)
    if arguments.preview is not None:
        if arguments.scenes:
            raise BadInput("--preview: takes an archive and --out FOLDER, no scenes")
        return preview(arguments.preview, arguments.out)
    if not arguments.scenes or arguments.out is None:
        raise BadInput("expected SCENE [SCENE ...] --out ARCHIVE, --verify ARCHIVE or --preview ARCHIVE; see --help")
    settings = ArchiveSettings(
        arguments.tile_size, arguments.halo, arguments.samples_per_shard, arguments.memory_mb, arguments.keep_bits
    )
    sources = [open_scene(spec) for spec in arguments.scenes]
    console = Console(stderr=True)
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[shards]} shards"),
    )
    columns += (DownloadColumn(), TransferSpeedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks = {source.name: bars.add_task(source.name, total=None, shards="") for source in sources}

        def show(scene: SceneProgress) -> None:
            shards = f"{scene.shards_done}/{scene.shards_total}"
            bars.update(tasks[scene.scene], completed=scene.bytes_done, total=scene.bytes_total, shards=shards)

        manifest = build_archive(
            sources, arguments.out, settings, workers=arguments.workers, add=arguments.add, report=show
        )
    print_summary(manifest, arguments.out)
    return EXIT_DONE


def verify(location: str) -> int:
    """Reads every byte of an archive; 0 where all is as the manifest says, 1 with every damaged file named."""
    try:
        archive = Archive.open(location, verify="hash")
    except DamagedArchive as damage:
        for fault in damage.faults:
            print(f"{damage.archive}: {fault}", file=sys.stderr)
        return EXIT_FAILED
    total = sum(record.bytes for record in archive.manifest.files)
    print(f"{location}: {len(archive.manifest.files)} files, {total / 1e6:,.1f} MB, all as written")
    print(f"fingerprint {archive.fingerprint}")
    return EXIT_DONE


def preview(location: str, out: str | None) -> int:
    """Draws each scene of an archive, by default into ARCHIVE-preview."""
    archive = Archive.open(location)
    if out is None:
        out = f"{location.rstrip('/').rpartition('://')[2]}-preview"
    for path in write_previews(archive, Path(out)):
        print(path)
    return EXIT_DONE


def print_summary(manifest: Manifest, location: str) -> None:
    """What was made, for the eye."""
    for scene in manifest.scenes:
        kind = " (generated)" if scene.generated else ""
        print(f"{scene.name}{kind}: {scene.height}x{scene.width} pixels, {len(scene.tiles)} tiles")
        for modality in scene.modalities:
            share = modality.valid_pixels / (scene.height * scene.width)
            print(f"  {modality.name}: {modality.bands} bands, {modality.dtype}, {share:.0%} of pixels valid")
            if modality.constant_bands:
                bands = ", ".join(map(str, modality.constant_bands))
                print(f"  warning: {modality.name}: constant, so nothing to learn from: band {bands}", file=sys.stderr)
        print(f"  {len(scene.classes)} classes" if scene.classes else "  no labels")
    print(f"archive {location}")
    print(f"fingerprint {manifest.fingerprint}")
