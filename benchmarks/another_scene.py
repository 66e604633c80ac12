"""What class priors and class means of the mapped scene bring: classifiers of one place map another.

Pairs of generated places are compared: those whose classes differ most in frequency, those that differ least, and
places of three classes whose frequencies are turned round. A classifier of the first place maps the second twice: with
priors and means estimated there, and with those of its own place.
"""

import sys

from report import benchmark_parser

from diffclip_dist.cli.commandline import end_at_once, run_command


def main() -> int:
    parser = benchmark_parser(__doc__)
    arguments = parser.parse_args()
    with end_at_once():
        from another_scene_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
