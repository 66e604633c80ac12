"""Objectives of pretraining beside each other.

Encoders learn over equally many windows of generated scenes, by contrast of parts and by what else was proposed.
Few-shot classifiers then learn from the same draws on scenes inside and outside of pretraining, beside random weights,
with the kernel head and without class names. Settings are chosen on generated scenes; with --real, the real scenes at
hand (DIFFCLIP_DATA, or ../shared/data) report too. A run that was stopped goes on where it was.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from kept_jobs import keep_option
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--real", action="store_true", help="report on the real scenes at hand too (off)")
    keep_option(parser, "runs/objectives", "encoders and finished jobs")
    arguments = parser.parse_args()
    with end_at_once():
        from objectives_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
