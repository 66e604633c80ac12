"""Options on a scene that differs from those that an encoder or a classifier knows."""

import argparse


def add_match_options(parser: argparse.ArgumentParser, knower: str) -> None:
    """Adds --map-bands and --trust-units.

    Args:
        parser: of the command.
        knower: what knows other scenes, ``encoder`` or ``classifier``.
    """
    parser.add_argument(
        "--map-bands", action="store_true",
        help=f"where the scene's bands are others than the {knower}'s, take the nearest by wavelength, at most 5 %% of "
        "it away (off: refused); an encoder with the wavelength stem takes any bands",
    )  # fmt: skip
    parser.add_argument(
        "--trust-units", action="store_true",
        help=f"take a scene whose values seem to come in other units than the {knower}'s scenes (off: refused)",
    )  # fmt: skip
