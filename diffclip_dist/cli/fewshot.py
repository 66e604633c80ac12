"""Few labelled pixels a class to figures, classifiers, maps and a report.

Draws supports from a scene's labels, aligns the pretrained encoder's features with the class names' text, tests on the
remaining labelled pixels, and does so for several seeds.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.feature_extraction.encoder_source import CONTROL
from diffclip_dist.feature_extraction.feature_config import Readout
from diffclip_dist.fewshot.episodes import Protocol
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, ClassPriors, FewshotConfig, HeadKind
from diffclip_dist.study.experiment import Task
from diffclip_dist.study.page import format_mean
from diffclip_dist.study.run_study import run_study
from diffclip_dist.study.study import Study
from diffclip_dist.study.study_folder import PAGE_FILE, RESULTS_FILE, check_destination, publish
from diffclip_dist.train.pretrain_config import PretrainConfig
from shards.archive.archive import Archive
from shards.build.default_archive import GENERATED_ARCHIVE, ensure_generated_archive
from shards.errors import BadInput

DEFAULT_ENCODER = Path(PretrainConfig.run_dir) / "encoder"


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--archive", default=GENERATED_ARCHIVE,
        help=f"archive with the labelled scene ({GENERATED_ARCHIVE}: a generated scene, built if absent)",
    )  # fmt: skip
    parser.add_argument(
        "--encoder", metavar="DIR|none|none:DIR",
        help="pretrained encoder; none: random weights of the default configuration; none:DIR: random weights of DIR's "
        f"configuration ({DEFAULT_ENCODER} where it exists, else none)",
    )  # fmt: skip
    parser.add_argument("--scene", metavar="NAME", help="scene of the archive (its only one with labels)")
    parser.add_argument("--shots", default="1,2,5", metavar="K[,K..]", help="labelled pixels a class (1,2,5)")
    parser.add_argument("--seeds", type=int, default=10, metavar="N", help="draws of each, seeds 0 to N-1 (10)")
    parser.add_argument(
        "--protocol", choices=get_args(Protocol), default="random",
        help="test on every other labelled pixel, on the official test map, or on pixels whose windows share no pixel "
        "with a training window (random)",
    )  # fmt: skip
    parser.add_argument(
        "--text", default="scratch", metavar="KIND",
        help="scratch: a small text transformer that learns with the shots; bank:FILE.npy: stored embeddings with a "
        "JSON list of names beside them; open_clip:MODEL[:PRETRAINED]: a frozen CLIP text tower (scratch)",
    )  # fmt: skip
    parser.add_argument(
        "--preset", choices=tuple(FEWSHOT_PRESETS), default="default",
        help="default: what measures best here; published: the paper's second stage, for the encoder that "
        "pretrain.py --set preset=published leaves; slow. The five options below change either (default)",
    )  # fmt: skip
    parser.add_argument(
        "--readout",
        choices=get_args(Readout),
        help="what describes a pixel: its window's class token, its own, or both",
    )
    parser.add_argument(
        "--head", choices=get_args(HeadKind),
        help="cosine learns by steps; kernel is solved in closed form, uses the unlabelled scene's own metric of "
        "spectra, and averages over neighbours that look alike, as far as held-out shots say that it helps",
    )  # fmt: skip
    parser.add_argument(
        "--tune-encoder", action=argparse.BooleanOptionalAction,
        help="whether the encoder learns from the shots too, with --head cosine; slow",
    )  # fmt: skip
    parser.add_argument(
        "--class-priors", choices=get_args(ClassPriors),
        help="with --head kernel: estimated from the scene's unlabelled pixels, for OA; or equal, for AA",
    )  # fmt: skip
    parser.add_argument(
        "--discriminant", action=argparse.BooleanOptionalAction,
        help="with --head kernel: estimate the class means from the scene's unlabelled pixels",
    )  # fmt: skip
    parser.add_argument("--class-shares", dest="old_class_priors", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=Path("runs/fewshot"), metavar="DIR", help="(runs/fewshot)")
    parser.add_argument("--quick", action="store_true", help="a little of everything in under 60 s; no measurement")
    return parser.parse_args()


def parse_shots(text: str) -> tuple[int, ...]:
    """Shots in ascending order, each once."""
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise BadInput(f"--shots {text}: expected numbers with commas between, such as 1,2,5") from None


def fewshot_config(arguments: argparse.Namespace) -> FewshotConfig:
    """The preset, with what else was given."""
    changes = {
        name: getattr(arguments, name) for name in ("readout", "head", "tune_encoder", "class_priors", "discriminant")
    }
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(FEWSHOT_PRESETS[arguments.preset], **given)


def main() -> int:
    """Conducts the study and writes its folder."""
    arguments = parse_arguments()
    if arguments.old_class_priors is not None:
        raise BadInput("--class-shares: is now called --class-priors")
    task = Task(parse_shots(arguments.shots), arguments.seeds, arguments.protocol, arguments.text)
    config = fewshot_config(arguments)
    check_destination(arguments.out)
    encoder = arguments.encoder
    if encoder is None:
        encoder = str(DEFAULT_ENCODER) if DEFAULT_ENCODER.exists() else CONTROL
    ensure_generated_archive(arguments.archive)
    archive = Archive.open(arguments.archive)
    columns = (
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        phases: dict[str, TaskID] = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in phases:
                phases[phase] = bars.add_task(phase, total=total)
            bars.update(phases[phase], completed=done, total=total)

        study = run_study(archive, arguments.scene, encoder, task, config, arguments.quick, show)
    publish(study, arguments.out)
    print_study(study, arguments.out)
    return EXIT_DONE


def print_study(study: Study, out: Path) -> None:
    """The figures, for the eye."""
    console = Console()
    record = study.scene.record
    console.print(f"scene    {record.name}{' (generated)' if record.generated else ''}, protocol {study.task.protocol}")
    console.print(f"encoder  {study.encoder.label}: {study.encoder.describe()}", soft_wrap=True)
    console.print(f"text     {study.outcome.text_label}")
    table = Table(
        "shots", "OA %", "AA %", "kappa", caption="mean [95 % interval] over the seeds", caption_justify="left"
    )
    for shots in study.task.shots:
        found = study.summaries(shots)
        table.add_row(str(shots), format_mean(found["oa"]), format_mean(found["aa"]), format_mean(found["kappa"], 2))
    console.print(table)
    for note in study.notes:
        console.print(f"note     {note}", style="yellow", soft_wrap=True)
    console.print(f"results  {out / RESULTS_FILE}")
    console.print(f"report   {out / PAGE_FILE}")
