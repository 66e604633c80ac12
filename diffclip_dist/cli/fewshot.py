"""Few labelled pixels a class to figures, classifiers, maps and a report.

Draws supports from a scene's labels, aligns the pretrained encoder's features with the class names' text, tests on the
remaining labelled pixels, and does so for several seeds.
"""

import argparse
from dataclasses import replace
from pathlib import Path

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
from diffclip_dist.cli.options.fewshot import DEFAULT_ENCODER
from diffclip_dist.feature_extraction.encoder_source import CONTROL
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, FewshotConfig
from diffclip_dist.study.experiment import Task
from diffclip_dist.study.page import format_mean
from diffclip_dist.study.run_study import run_study
from diffclip_dist.study.study import Study
from diffclip_dist.study.study_folder import PAGE_FILE, RESULTS_FILE, check_destination, publish
from shards.archive.archive import Archive
from shards.build.default_archive import ensure_generated_archive
from shards.errors import BadInput


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


def run(arguments: argparse.Namespace) -> int:
    """Conducts the study and writes its folder."""
    if arguments.old_class_priors is not None:
        raise BadInput("--class-shares: is now called --class-priors")
    task = Task(parse_shots(arguments.shots), arguments.seeds, arguments.protocol, arguments.text)
    config = fewshot_config(arguments)
    check_destination(arguments.out, arguments.force)
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

        study = run_study(
            archive, arguments.scene, encoder, task, config, arguments.quick, show,
            map_bands=arguments.map_bands, trust_units=arguments.trust_units,
        )  # fmt: skip
    publish(study, arguments.out, arguments.force)
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
