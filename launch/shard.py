"""Scenes into an archive that pretraining streams, and the check of an archive."""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shards.archive import Archive
from shards.build import Progress as ShardsDone
from shards.build import build_archive
from shards.commandline import EXIT_DONE, EXIT_FAILED, run_command
from shards.errors import BadInput, DamagedArchive
from shards.manifest import Manifest
from shards.open_scene import open_scene
from shards.plan import ArchiveSettings


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="shard.py",
        description="Turns scenes into an archive: a Zarr v3 scene each, WebDataset tiles with a halo, and a manifest.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    defaults = ArchiveSettings()
    parser.add_argument("scenes", metavar="SCENE", nargs="*", help="a scene.yaml, a folder with one, or `synthetic`")
    parser.add_argument("--out", metavar="ARCHIVE", type=Path, help="folder of the archive to be made")
    parser.add_argument("--tile-size", type=int, default=defaults.tile_size, metavar="PIXELS", help="side of a tile")
    parser.add_argument(
        "--halo", type=int, default=defaults.halo, metavar="PIXELS", help="around each tile; windows up to 2*halo+1 fit"
    )
    parser.add_argument(
        "--samples-per-shard", type=int, default=defaults.samples_per_shard, metavar="N", help="most tiles in one tar"
    )
    parser.add_argument("--verify", metavar="ARCHIVE", type=Path, help="check every byte of an archive instead")
    return parser.parse_args()


def main() -> int:
    """Builds or verifies, as the command line says."""
    arguments = parse_arguments()
    if arguments.verify is not None:
        if arguments.scenes or arguments.out is not None:
            raise BadInput("--verify: takes an archive alone, no scenes and no --out")
        return verify(arguments.verify)
    if not arguments.scenes or arguments.out is None:
        raise BadInput("expected SCENE [SCENE ...] --out ARCHIVE, or --verify ARCHIVE; see --help")
    settings = ArchiveSettings(arguments.tile_size, arguments.halo, arguments.samples_per_shard)
    sources = [open_scene(spec) for spec in arguments.scenes]
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("shards"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as bars:
        tasks = {source.name: bars.add_task(source.name, total=None) for source in sources}

        def show(done: ShardsDone) -> None:
            bars.update(tasks[done.scene], completed=done.done, total=done.total)

        manifest = build_archive(sources, arguments.out, settings, show)
    print_summary(manifest, arguments.out)
    return EXIT_DONE


def verify(location: Path) -> int:
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


def print_summary(manifest: Manifest, location: Path) -> None:
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


if __name__ == "__main__":
    sys.exit(run_command(main))
