"""What pretraining brings: one encoder over many unlabelled scenes, beside random weights under the same head.

Encoders are pretrained over 1 to 30 generated scenes of several sensors, by mask diffusion or by contrasting parts.
Few-shot classifiers then learn from the same draws on scenes inside the pretraining set, on other places of the same
sensors, and on other sensors. With --data, real scenes are tested (DIFFCLIP_DATA, or ../shared/data, holds them):
with an encoder that saw generated scenes alone, and with one that saw them all. Three read-outs are compared: the
kernel head (without class names), which also sees the bands; the cosine head; and the nearest labelled neighbour, in
the encoder's features alone. A run that was stopped goes on where it was.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from kept_jobs import keep_option
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    parser.add_argument("--data", action="store_true", help="test on the real scenes at hand (off)")
    keep_option(parser, "runs/many-scenes", "archives, encoders and finished jobs")
    arguments = parser.parse_args()
    with end_at_once():
        from many_scenes_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
