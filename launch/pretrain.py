"""``diffclip pretrain`` as a script; what it does is in diffclip_dist/cli/pretrain.py."""

import sys

from diffclip_dist.cli.commandline import run_command
from diffclip_dist.cli.pretrain import main

if __name__ == "__main__":
    sys.exit(run_command(main))
