"""A STAC item of an archive's scene or of a map."""

import argparse
import json
from pathlib import Path

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.mapping.stac_items import map_item, parse_times, scene_item
from shards.archive.archive import Archive
from shards.archive.publish import new_file
from shards.errors import BadInput


def run(arguments: argparse.Namespace) -> int:
    """Writes the item."""
    times = parse_times(arguments.datetime)
    if arguments.out.exists():
        raise BadInput(f"--out {arguments.out}: exists already; name another file")
    if not arguments.out.parent.is_dir():
        raise BadInput(f"--out {arguments.out}: its folder does not exist; make it first")
    if Path(arguments.place).is_file():
        if arguments.scene is not None:
            raise BadInput("--scene: expected with an archive alone, found a file")
        item = map_item(Path(arguments.place), times, arguments.out)
    else:
        archive = Archive.open_unverified(arguments.place)
        names = [record.name for record in archive.manifest.scenes]
        if arguments.scene is None and len(names) > 1:
            raise BadInput(f"--scene: expected one of {', '.join(names)}")
        record = archive.scene(arguments.scene or names[0])
        item = scene_item(archive, record, times, arguments.out)
    with new_file(arguments.out) as partial:
        partial.write_text(json.dumps(item, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    print(f"item  {arguments.out}: {item['id']}, {', '.join(item['assets'])}")
    return EXIT_DONE
