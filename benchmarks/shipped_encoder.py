"""Pretrains the encoder that comes with the package, by contrast over generated scenes of many sensors.

python benchmarks/shipped_encoder.py FOLDER    # some five minutes of one core; FOLDER/encoder is the encoder
"""

import argparse
import sys
from pathlib import Path

from diffclip_dist.cli.start import end_at_once, run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="absent or empty")
    folder = parser.parse_args().folder
    with end_at_once():
        from shipped_pretraining import pretrain  # takes seconds, and --help does without
    return pretrain(folder)


if __name__ == "__main__":
    sys.exit(run_command(main))
