"""How right the maps are: classical classifiers, ours with random weights, as published and as it measures best.

Every classifier learns from the same nested draws and is tested on every other labelled pixel, but for the published
one, which reads a window a pixel and is tested on an evenly spread part of them. No setting is chosen by a test label
of a real scene: head, timesteps and steps were chosen on generated scenes (some of which were made after the real
ones had shown what the others lacked), the rest of the default model by what it costs, and which description of a
pixel and which kernel count, by each draw's own shots. Real scenes are measured where DIFFCLIP_DATA (or
../shared/data) holds them. A run that was stopped goes on where it was.
"""

import sys
from pathlib import Path

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--keep", type=Path, default=Path("runs/accuracy"), metavar="DIR", help="folder of finished jobs (%(default)s)"
    )
    arguments = parser.parse_args()
    with end_at_once():
        from accuracy_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
