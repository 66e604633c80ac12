"""Few labelled pixels a class to figures, classifiers, maps and a report.

Draws supports from a scene's labels, aligns the pretrained encoder's features with the class names' text, tests on the
remaining labelled pixels, and does so for several seeds.
"""

import argparse
from pathlib import Path
from typing import get_args

from diffclip_dist.cli.options.log_format import add_log_format
from diffclip_dist.cli.options.scene_match import add_match_options
from diffclip_dist.feature_extraction.feature_config import Readout
from diffclip_dist.fewshot.episodes import Protocol
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, ClassPriors, HeadKind
from diffclip_dist.train.pretrain_config import PretrainConfig
from shards.build.default_archive import GENERATED_ARCHIVE

DEFAULT_SHOTS = "1,2,5"
DEFAULT_SEEDS = 10
DEFAULT_ENCODER = Path(PretrainConfig.run_dir) / "encoder"


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what the command takes; an option of the classifier that is left out is None: the preset decides."""
    presets = FEWSHOT_PRESETS["default"], FEWSHOT_PRESETS["published"]

    def by_preset(name: str) -> str:
        default, published = (getattr(preset, name) for preset in presets)
        words = {True: "on", False: "off"}
        shown, other = words.get(default, default), words.get(published, published)
        return f"({shown})" if shown == other else f"({shown}; published: {other})"

    parser.add_argument(
        "--archive", default=GENERATED_ARCHIVE,
        help=f"archive with the labelled scene ({GENERATED_ARCHIVE}: a generated scene, built if absent)",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", metavar="DIR|shipped|none|none:DIR",
        help="pretrained encoder; shipped: the one that comes with diffclip, pretrained over generated scenes of many "
        "sensors; none: random weights of the default configuration; none:DIR: random weights of DIR's configuration "
        f"({DEFAULT_ENCODER} where it exists, else shipped)",
    )  # fmt: skip
    add_match_options(parser, "encoder")
    parser.add_argument("--scene", metavar="NAME", help="scene of the archive (the only one with labels)")
    parser.add_argument(
        "--shots", metavar="K[,K..]", help=f"labelled pixels a class; 0: from class names alone ({DEFAULT_SHOTS})",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, metavar="N", help=f"draws of each, seeds 0 to N-1 ({DEFAULT_SEEDS})")
    parser.add_argument(
        "--fit", action="store_true",
        help="instead of draws: learn from every label given (with --protocol official, from the training map), write "
        "OUT/model and map the scene; figures come from cross-validation over the labels (off)",
    )  # fmt: skip
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), default="random",
        help="test on every other labelled pixel, on the official test map, or on pixels whose windows share no pixel "
        "with a training window (random); with --fit: hold out labels at random or by blocks of the scene, or test on "
        "the official test map",
    )  # fmt: skip
    parser.add_argument(
        "--text", default="words", metavar="KIND",
        help="words: class names act as a prior, through the spectra of the materials that they name, with --head "
        "kernel and where the scene's bands have wavelengths and its values are reflectance, else scratch; scratch: a "
        "small text transformer that learns with the shots; bank:FILE.npy: stored embeddings with a JSON list of names "
        "beside them, see diffclip textbank; open_clip:MODEL[:PRETRAINED]: a frozen CLIP text tower. A bank or CLIP "
        "tells with --head kernel which materials the names mean, and gives the class vectors of --head cosine (words)",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=tuple(FEWSHOT_PRESETS), default="default",
        help="default: what measures best here; published: the paper's second stage, for the encoder that "
        "pretrain.py --set preset=published leaves; slow. The five options below change either (default)",
    )  # fmt: skip
    parser.add_argument(
        "--readout",
        choices=get_args(Readout),
        help=f"the features of a pixel: its window's class token, its own token, or both {by_preset('readout')}",
    )
    parser.add_argument(
        "--head", choices=get_args(HeadKind),
        help="cosine learns by steps; kernel is solved in closed form, uses the unlabelled scene's own metric of "
        "spectra, and averages over neighbours that look alike, as far as held-out shots say that it helps "
        + by_preset("head"),
    )  # fmt: skip
    parser.add_argument(
        "--tune-encoder", action=argparse.BooleanOptionalAction,
        help=f"whether the encoder learns from the shots too, with --head cosine; slow {by_preset('tune_encoder')}",
    )  # fmt: skip
    parser.add_argument(
        "--class-priors", choices=get_args(ClassPriors),
        help="with --head kernel: estimated from the scene's unlabelled pixels, for OA; or equal, for AA "
        + by_preset("class_priors"),
    )  # fmt: skip
    parser.add_argument(
        "--discriminant", action=argparse.BooleanOptionalAction,
        help="with --head kernel: estimate the class means from the scene's unlabelled pixels "
        + by_preset("discriminant"),
    )  # fmt: skip
    parser.add_argument("--class-shares", dest="old_class_priors", help=argparse.SUPPRESS)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fewshot"), metavar="DIR", help="folder to write (%(default)s)"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace an earlier study in --out, once the new one is whole (off)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a little of everything in under 60 s; its figures measure nothing (off)"
    )
    add_log_format(parser)
