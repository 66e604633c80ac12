"""How fast a trained classifier maps a scene: pixels a second by stride, and memory by the scene's height.

A stride of 3 reads nine pixels from each window where a stride of 1 reads one; the share of pixels on which both agree
stands beside the rate. Weights are random and shots few, since neither changes the speed. Nothing else should run
meanwhile.
"""

import sys

from report import benchmark_parser

from diffclip_dist.cli.commandline import end_at_once, run_command


def main() -> int:
    parser = benchmark_parser(__doc__)
    arguments = parser.parse_args()
    with end_at_once():
        from prediction_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
