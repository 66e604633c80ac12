"""What adaptation to unlabelled pixels brings or costs where a modality covers a part of the scene.

In generated scenes one modality is kept at 1, 10 and 50 % of the places, at random or in blocks; labels lie everywhere
or in that part alone. Classifiers with class priors and class means from unlabelled pixels are compared with the same
heads alone, from the same shots.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    arguments = parser.parse_args()
    with end_at_once():
        from coverage_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
