"""A whole scene to a land-cover map: MAP.tif with CRS, transform, colour table and class names, and MAP.png."""

import argparse

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.fewshot.scene_match import MatchOptions
from diffclip_dist.mapping.map_files import check_map_file, write_map
from diffclip_dist.mapping.predict import predict_map, quick_rows
from shards.archive.archive import Archive
from shards.extras import install_line


def run(arguments: argparse.Namespace) -> int:
    """Maps the scene."""
    check_map_file(arguments.out, arguments.force)
    classifier = load_classifier(arguments.model)
    archive = Archive.open(arguments.archive)
    record = archive.scene(arguments.scene)
    rows = quick_rows(classifier, record) if arguments.quick else record.height
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("pixels"))
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True)) as bars:

        def show(done: int) -> None:
            # a scene that is refused gets one line, and no bar
            bar = bars.task_ids[0] if bars.task_ids else bars.add_task("mapping", total=rows * record.width)
            bars.update(bar, completed=done)

        options = MatchOptions(arguments.map_bands, arguments.trust_units)
        class_map = predict_map(classifier, archive[record.name], rows=rows, report=show, options=options)
    picture = write_map(arguments.out, class_map, record, classifier.config, rows)
    print(f"map      {arguments.out}{' (of a generated scene)' if record.generated else ''}")
    print(f"picture  {picture or 'not drawn: ' + install_line('matplotlib')}")
    return EXIT_DONE
