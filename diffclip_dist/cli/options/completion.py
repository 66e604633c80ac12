"""Prints a script with which the shell completes diffclip's commands, their options and choices, and file names.

bash:  diffclip completion bash > ~/.local/share/bash-completion/completions/diffclip
zsh:   diffclip completion zsh > FOLDER/_diffclip, with FOLDER in $fpath
fish:  diffclip completion fish > ~/.config/fish/completions/diffclip.fish
"""

import argparse

SHELLS = ("bash", "zsh", "fish")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes."""
    parser.add_argument("shell", choices=SHELLS, help="the shell that is to complete")
