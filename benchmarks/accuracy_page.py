"""Writes docs/accuracy.md, and the table in the README, from what benchmarks/accuracy.py --json wrote.

python benchmarks/accuracy_page.py FILE.json      # writes docs/accuracy.md and the README's table
"""

import argparse
import sys
from pathlib import Path

from diffclip_dist.cli.start import end_at_once, run_command


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.json", help="what accuracy.py --json wrote")
    file = parser.parse_args().file
    with end_at_once():
        from accuracy_report import write  # takes seconds, and --help does without
    return write(file)


if __name__ == "__main__":
    sys.exit(run_command(main))
