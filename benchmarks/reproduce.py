"""The paper's table: Houston2013, Trento and MUUFL with 2 and 40 labelled pixels a class, ten repeats.

Beside each preset stand the same model without pretraining and the published second stage from random weights with
frozen text, which is CLIP-style alignment alone, the paper's baseline; the differences are printed next to the
published one. Sets come by the package rs-fusion-datasets (the extra `public`), which needs a network the first time;
`--scene` takes stand-ins instead, and every output says so. A set with an official split is tested on it, another on
the labelled pixels outside the shots. A run that was stopped goes on where it was, job by job.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from kept_jobs import keep_option
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    add = parser.add_argument
    add(
        "--scene",
        action="append",
        metavar="SCENE",
        help="a stand-in: scene.yaml, folder or generated scene; may repeat",
    )
    add("--shots", default="2,40", metavar="K[,K..]", help="labelled pixels a class (%(default)s)")
    add("--repeats", type=int, default=10, metavar="N", help="draws of the labelled pixels (%(default)s)")
    add("--presets", default="published,default", metavar="NAME[,NAME]", help="%(default)s")
    add("--steps", type=int, default=400, metavar="N", help="pretraining steps of 128 windows a scene (%(default)s)")
    add("--epochs", type=int, default=150, metavar="N", help="of the published second stage (%(default)s)")
    add(
        "--windows", type=int, default=2_000, metavar="N",
        help="windows tested a draw, evenly spread; 0 for all: the published encoder reads each anew (%(default)s)",
    )  # fmt: skip
    add(
        "--text", default="", metavar="bank:FILE|open_clip:MODEL[:PRETRAINED]",
        help="frozen text of the alignment alone, such as CLIP's (class names by the sentence model)",
    )  # fmt: skip
    add("--workers", type=int, default=2, metavar="N", help="jobs at a time, a thread each (%(default)s)")
    keep_option(parser, "runs/reproduce", "finished jobs, which changed code does not measure anew")
    arguments = parser.parse_args()
    with end_at_once():
        from reproduce_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
