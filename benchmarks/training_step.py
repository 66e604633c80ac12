"""How long a training step takes, and where its time goes, beside the published step written plainly in eager torch.

Windows of random numbers lie on the device already: no archive, no Ray, one process, ZeRO stage 0. Each row of ours is
one preset, precision and batch, compiled on GPUs; its rate is also given as a multiple of the published step's in
float32 with 128 windows. On a GPU, batches grow until memory ends, small ones are also measured with CUDA graphs, and
losses and draws are checked first: the GPU's against the CPU's, and compiled ones, with and without CUDA graphs,
against plain ones over 5,000 steps. Nothing else should run meanwhile.

    python benchmarks/training_step.py --json new.json --compare old.json --trace step.json
    python benchmarks/training_step.py --drift 5000 --json drift.json         # compiled losses beside plain ones
    python benchmarks/training_step.py --tries docs/performance-tries.json    # what docs/performance.md lists as tried
"""

import sys
from pathlib import Path

from report import benchmark_parser, check_destination

from diffclip_dist.cli.commandline import end_at_once, run_command


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument(
        "--compare", type=Path, metavar="OLD.json", help="an earlier --json, to compare rates with (off)"
    )
    parser.add_argument(
        "--trace", type=Path, metavar="FILE", help="write a trace of one step of the last row, for Perfetto (off)"
    )
    parser.add_argument(
        "--tries",
        type=Path,
        metavar="FILE",
        help="measure instead what was tried to make a step faster, and write it there (off)",
    )
    parser.add_argument(
        "--drift",
        type=int,
        metavar="STEPS",
        help="measure instead how far compiled losses come from plain ones over so many steps (off)",
    )
    arguments = parser.parse_args()
    check_destination(arguments.tries)
    with end_at_once():
        if arguments.tries is not None:
            from step_tries import measure
        elif arguments.drift is not None:
            from training_step_rows import measure_drift as measure
        else:
            from training_step_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
