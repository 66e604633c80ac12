"""How right a map from class names alone is, without a labelled pixel, beside the same with the names shuffled.

Labels serve for the test alone. Real scenes are measured where DIFFCLIP_DATA (or ../shared/data) holds them, with the
wavelengths, sensors and heights that their files do not carry; generated ones always.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    arguments = parser.parse_args()
    with end_at_once():
        from names_alone_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
