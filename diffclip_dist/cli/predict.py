"""A whole scene to a land-cover map: MAP.tif with CRS, transform, colour table and class names, and MAP.png."""

import argparse
import sys

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.cli.progress import progress
from diffclip_dist.feature_extraction.bands_only import best_device
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.fewshot.scene_match import MatchOptions
from diffclip_dist.mapping.map_files import MapFiles, check_map_file, describe_calibration, write_map
from diffclip_dist.mapping.predict import MapJob, MapOptions, map_job, on_device, quick_rows
from diffclip_dist.mapping.unfinished_map import unfinished_folder
from shards.archive.archive import Archive
from shards.extras import install_line


def run(arguments: argparse.Namespace) -> int:
    """Maps the scene."""
    check_map_file(arguments.out, arguments.force)
    classifier = on_device(load_classifier(arguments.model), best_device())
    archive = Archive.open(arguments.archive)
    record = archive.scene(arguments.scene)
    rows = quick_rows(classifier, record) if arguments.quick else None
    options = MapOptions(arguments.probabilities, arguments.unsure, rows)
    match = MatchOptions(arguments.map_bands, arguments.trust_units, arguments.keep_priors, _names(arguments.also))
    job = map_job(classifier, archive[record.name], options, match)
    pixels = (rows or record.height) * record.width
    try:
        written = _write(arguments, job, pixels)
    except BaseException:
        if unfinished_folder(arguments.out).exists():
            print("finished blocks are kept: the same command goes on from them", file=sys.stderr)
        raise
    print(f"map            {written.classes}{' (of a generated scene)' if record.generated else ''}")
    if written.probabilities is not None:
        print(f"probabilities  {written.probabilities}")
    if written.probabilities is not None or options.unsure is not None:
        print(f"calibration    {describe_calibration(classifier.config.calibration)}")
    if written.resumed_pixels:
        print(f"went on        from {written.resumed_pixels} of {pixels} pixels, finished by an earlier run")
    print(f"picture        {written.picture or 'not drawn: ' + install_line('matplotlib')}")
    return EXIT_DONE


def _names(listed: str | None) -> tuple[str, ...]:
    """Names with commas between."""
    return () if listed is None else tuple(name.strip() for name in listed.split(","))


def _write(arguments: argparse.Namespace, job: MapJob, pixels: int) -> MapFiles:
    """Writes the map and shows how far it is."""
    # options that are refused get one line, and no bar
    with progress(arguments.log_format, "pixels") as show:
        return write_map(arguments.out, job, arguments.workers, lambda done: show("mapping", done, pixels))
