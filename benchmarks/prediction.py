"""How fast a trained classifier maps a scene, and in which memory: by stride, by the scene's height and by its size.

A stride of 3 reads nine pixels from each window where a stride of 1 reads one; the share of pixels on which both agree
stands beside the rate. Weights are random and shots few, since neither changes the speed. Nothing else should run
meanwhile.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def _sizes(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--megapixels",
        type=_sizes,
        metavar="M[,M..]",
        help="sizes of the scenes that the command predict maps (0.66,20; with --quick 0.05)",
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes of the command predict on these scenes (1)"
    )
    arguments = parser.parse_args()
    with end_at_once():
        from prediction_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
