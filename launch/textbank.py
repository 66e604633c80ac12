"""``diffclip textbank`` as a script; what it does is in diffclip_dist/cli/textbank.py."""

import sys

from diffclip_dist.cli.start import script_main

if __name__ == "__main__":
    sys.exit(script_main("textbank"))
