"""How right the maps are on real scenes: ours with and without names and pretraining, beside classical classifiers.

Every classifier learns from the same nested draws and is tested on every other labelled pixel: of the same scene
(random), of distant blocks of it (blocks), or of its other half as a scene of its own (cross-scene). The published
second stage alone, whose encoder is tuned on each draw, is tested on an evenly spread part. No setting is chosen by a
test label of a real scene: settings were chosen on generated scenes, description and kernel are by each draw's own
shots. What sees unlabelled pixels, the tested ones among them, is called so (transductive). Real scenes are measured
where DIFFCLIP_DATA (or ../shared/data) holds them, then generated ones. A run that was stopped goes on where it was.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from kept_jobs import keep_option
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    keep_option(parser, "runs/accuracy", "finished jobs, which changed code does not measure anew")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N", help="jobs at a time, a thread each (%(default)s)"
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help="start no job after so many; what matters most comes first (no limit)",
    )
    arguments = parser.parse_args()
    if arguments.workers < 1:
        parser.error(f"--workers: expected at least 1, found {arguments.workers}")
    with end_at_once():
        from accuracy_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
