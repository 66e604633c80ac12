"""Tasks that `archive_io.py` runs in processes of their own, to measure their memory or to kill them.

Prints a first line when the task begins and a line of JSON when it is done.
"""

import sys
from pathlib import Path

from diffclip_dist.cli.command_parser import CommandParser
from diffclip_dist.cli.commandline import end_at_once, run_command


def main() -> int:
    parser = CommandParser(Path(sys.argv[0]).name, __doc__)
    parser.add_argument("task", choices=("build", "stream", "shards"), help="shards: build with one tile a shard")
    parser.add_argument("out", help="the archive that is built or streamed")
    parser.add_argument("side", type=int, help="side of the generated scene in pixels")
    arguments = parser.parse_args()
    with end_at_once():
        from archive_tasks import run_task  # takes seconds, and --help does without
    return run_task(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
