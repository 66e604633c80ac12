"""Scenes into an archive that pretraining streams, and the check of an archive."""

import argparse
import sys
from pathlib import Path

from diffclip_dist.cli.commandline import EXIT_DONE, EXIT_FAILED
from diffclip_dist.cli.progress import progress
from shards.archive.archive import Archive
from shards.archive.manifest import Manifest
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import Progress as SceneProgress
from shards.build.build_archive import build_archive
from shards.errors import BadInput, DamagedArchive
from shards.open_scene import open_scene
from shards.scene.file_scene import FileScene


def run(arguments: argparse.Namespace) -> int:
    """Builds or verifies, as the command line says."""
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
    for source in sources:
        for note in source.notes if isinstance(source, FileScene) else ():
            print(f"note: {note}", file=sys.stderr)
    with progress(arguments.log_format, "bytes") as show:

        def show_scene(scene: SceneProgress) -> None:
            show(scene.scene, scene.bytes_done, scene.bytes_total, f"{scene.shards_done}/{scene.shards_total} shards")

        manifest = build_archive(
            sources, arguments.out, settings, workers=arguments.workers, add=arguments.add, report=show_scene
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
    from shards.preview.preview import write_previews  # needs matplotlib, and nothing else here does

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
