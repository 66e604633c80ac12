"""What captions bring as a second objective of pretraining, beside the contrast of parts alone.

Encoders learn over the same generated scenes, for equally many steps: by contrast alone, and by contrast while the
token of every visible pixel of a scene of materials is brought near to the sentence vector of its caption. Scenes of
materials have labels, which are their captions; nothing else is labelled. Then, on generated scenes whose spectra
pretraining did not see, and on real ones: few-shot figures with and without class names, and names alone, told by the
encoder or by the words. A run that was stopped goes on where it was.
"""

import sys

from diffclip_dist.cli.start import end_at_once, run_command

# isort: split
from kept_jobs import keep_option
from report import benchmark_parser


def main() -> int:
    parser = benchmark_parser(__doc__)
    keep_option(parser, "runs/language", "encoders and finished jobs")
    arguments = parser.parse_args()
    with end_at_once():
        from language_rows import measure  # takes seconds, and --help does without
    return measure(arguments)


if __name__ == "__main__":
    sys.exit(run_command(main))
