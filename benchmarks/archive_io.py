"""Archives measured: reading windows, bytes on disk, building by several workers, memory, and restarts after kills.

Every figure is of this run. Nothing else should run meanwhile. Without --quick a scene of 4 GB is made up, built and
streamed, which takes most of the time.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    arguments = parser.parse_args()
    with end_at_once():
        from archive_io_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
