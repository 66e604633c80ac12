"""How fast pretraining goes from end to end: samples a second per GPU (per worker on CPUs), waiting, utilisation.

Each row is a real run through Ray Train and DeepSpeed, read from its own metrics: wall clock, with the wait for data.
The first of its equal stretches of steps warms up and is dropped; a row is the median of the others. Utilisation is
the model's matrix operations over the matrix rate that the workers measure at the start of the same run. The first
row is the published configuration; each other row changes one thing, bfloat16 only where the machine computes in it.
Nothing else should run meanwhile.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--archive", help="archive to pretrain on (one of a generated scene with 144 + 1 bands, built and deleted)"
    )
    arguments = parser.parse_args()
    with end_at_once():
        from throughput_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
