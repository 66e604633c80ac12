"""Few labelled pixels a class to figures, classifiers, maps and a report.

Draws supports from a scene's labels, aligns the pretrained encoder's features with the class names' text, tests on the
remaining labelled pixels, and does so for several seeds. With --fit it learns from every label once instead.
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffclip_dist.cli.commandline import EXIT_DONE
from diffclip_dist.cli.options.fewshot import DEFAULT_ENCODER, DEFAULT_SEEDS, DEFAULT_SHOTS
from diffclip_dist.cli.progress import progress
from diffclip_dist.feature_extraction.encoder_source import SHIPPED
from diffclip_dist.fewshot.fewshot_config import FEWSHOT_PRESETS, FewshotConfig
from diffclip_dist.study.experiment import Task
from diffclip_dist.study.fit_study import MODEL_FOLDER, FitStudy
from diffclip_dist.study.page import format_mean
from diffclip_dist.study.run_study import run_fit, run_study
from diffclip_dist.study.study import Study
from diffclip_dist.study.study_folder import PAGE_FILE, RESULTS_FILE, check_destination, publish
from shards.archive.archive import Archive
from shards.build.default_archive import ensure_generated_archive
from shards.errors import BadInput, Terminated


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


def study_task(arguments: argparse.Namespace) -> Task:
    """What to draw and to test on."""
    shots = DEFAULT_SHOTS if arguments.shots is None else arguments.shots
    seeds = DEFAULT_SEEDS if arguments.seeds is None else arguments.seeds
    return Task(parse_shots(shots), seeds, arguments.protocol, arguments.text)


def check_fit_options(arguments: argparse.Namespace) -> None:
    """Raises BadInput where --fit comes with an option of draws."""
    for name in ("shots", "seeds"):
        if (given := getattr(arguments, name)) is not None:
            raise BadInput(
                f"--fit --{name} {given}: --fit learns from every label and draws none; leave out --{name}, or --fit"
            )


def run(arguments: argparse.Namespace) -> int:
    """Conducts the study, or the fit to all labels, and writes its folder."""
    if arguments.old_class_priors is not None:
        raise BadInput("--class-shares: is now called --class-priors")
    task = None if arguments.fit else study_task(arguments)
    if task is None:
        check_fit_options(arguments)
    config = fewshot_config(arguments)
    check_destination(arguments.out, arguments.force)
    encoder = arguments.encoder
    if encoder is None:
        encoder = str(DEFAULT_ENCODER) if DEFAULT_ENCODER.exists() else SHIPPED
    ensure_generated_archive(arguments.archive)
    archive = Archive.open(arguments.archive)
    with _nothing_kept(arguments.out), progress(arguments.log_format) as show:
        study: Study | FitStudy
        if task is None:
            study = run_fit(
                archive, arguments.scene, encoder, arguments.protocol, arguments.text, config, arguments.quick, show,
                map_bands=arguments.map_bands, trust_units=arguments.trust_units,
            )  # fmt: skip
        else:
            study = run_study(
                archive, arguments.scene, encoder, task, config, arguments.quick, show,
                map_bands=arguments.map_bands, trust_units=arguments.trust_units,
            )  # fmt: skip
        publish(study, arguments.out, arguments.force, show)
    print_study(study, arguments.out)
    return EXIT_DONE


@contextmanager
def _nothing_kept(out: Path) -> Iterator[None]:
    """Says what a signal leaves: the folder is written whole, or stays as it was."""
    try:
        yield
    except (KeyboardInterrupt, Terminated) as stop:
        stop.args = (f"{out}: as it was before; the same command begins anew",)
        raise


def print_study(study: Study | FitStudy, out: Path) -> None:
    """The figures, for the eye."""
    console = Console()
    record = study.scene.record
    console.print(f"scene    {record.name}{' (generated)' if record.generated else ''}, protocol {study.protocol}")
    console.print(f"encoder  {study.encoder.label}: {study.encoder.describe()}", soft_wrap=True)
    console.print(f"text     {study.text_label}")
    table = Table("learned from", "OA %", "AA %", "kappa", caption=study.figures_are, caption_justify="left")
    for kept in study.kept:
        oa, aa, kappa = (kept.figures[name] for name in ("oa", "aa", "kappa"))
        table.add_row(kept.name, format_mean(oa), format_mean(aa), format_mean(kappa, 2))
    console.print(table)
    for note in study.notes:
        console.print(f"note     {note}", style="yellow", soft_wrap=True)
    if isinstance(study, FitStudy):
        console.print(f"model    {out / MODEL_FOLDER}")
    console.print(f"results  {out / RESULTS_FILE}")
    console.print(f"report   {out / PAGE_FILE}")
