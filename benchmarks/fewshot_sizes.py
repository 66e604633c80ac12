"""Time and memory of the command fewshot, for thirty models: a scene of Houston2013's size, and larger ones.

Scenes are generated. The first has 349 x 1905 pixels of 144 bands and height; the others repeat a tile of four bands
and height. The encoder has random weights, which changes neither time nor memory. Processor time stands beside the time
that passed: nothing else should run meanwhile.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part)


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--megapixels",
        type=_sizes,
        metavar="M[,M..]",
        help="sizes of the repeated scenes (20,120; with --quick 0.2)",
    )
    arguments = parser.parse_args()
    with end_at_once():
        from fewshot_size_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
