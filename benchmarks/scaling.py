"""How pretraining scales: time and memory a worker, measured on this machine beside what the formulas say.

Weak scaling: the published configuration with the same windows a worker on 1 and 2 workers, one thread each, on real
DeepSpeed engines, several workers under Ray Train; the share of a step in which a collective is under way; and the
step that the cost model predicts from its parts, each measured apart from the step. Memory: bytes of parameters,
gradients and optimizer state that a worker holds under each ZeRO stage, beside the formula. Archive size: the time
to work out a step's samples, and time and memory to open a manifest, to plan a run on it and to send it to a rank, for
1,000 to 1,000,000 tiles. Nothing else should run meanwhile.
"""

import sys
from pathlib import Path

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--project", type=Path, nargs="?", const=Path("scaling.png"), metavar="PNG",
        help="also draw the cost model for the presets on 8 to 1,024 GPUs (off; without a file into %(const)s)",
    )  # fmt: skip
    parser.add_argument(
        "--sizes", action="store_true", help="measure by the archive's size alone, without workers (off)"
    )
    parser.add_argument(
        "--weak", action="store_true",
        help="measure weak scaling under ZeRO 0 and 1 alone, one worker and two in three turns (off)",
    )  # fmt: skip
    arguments = parser.parse_args()
    with end_at_once():
        from scaling_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
