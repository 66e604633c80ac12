"""Writes a study's folder: all of it, or nothing."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from diffclip_dist.fewshot.classifier import save_classifier
from diffclip_dist.mapping.map_files import publish_map
from diffclip_dist.mapping.map_picture import render_map
from diffclip_dist.study.page import write_page
from diffclip_dist.study.results import results, supports
from diffclip_dist.study.study import Study
from shards.errors import BadInput

RESULTS_FILE = "results.json"
SUPPORTS_FILE = "supports.json"
PAGE_FILE = "report.html"
MAPS_FOLDER = "maps"
REFERENCE_FILE = "reference.png"


def check_destination(out: Path) -> None:
    """Raises BadInput unless `out` is absent, empty, or an earlier study that may be replaced."""
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file, expected a folder")
    if out.is_dir() and any(out.iterdir()) and not (out / RESULTS_FILE).is_file():
        raise BadInput(f"--out {out}: holds something other than an earlier few-shot study; name another folder")


def publish(study: Study, out: Path) -> None:
    """Writes results.json, supports.json, classifiers, maps and report.html, in place of an earlier study.

    Raises:
        BadInput: `out` cannot be written or holds something else.
    """
    with _published(out) as folder:
        maps = folder / MAPS_FOLDER
        maps.mkdir()
        record, classes = study.scene.record, study.classes
        render_map(
            maps / REFERENCE_FILE,
            study.reference_map(),
            classes,
            title=f"{record.name}: reference",
            subtitle="labelled pixels",
            generated=record.generated,
            empty="unlabelled",
        )
        for shots in study.task.shots:
            save_classifier(folder / f"model-{shots}shot", study.classifier(shots), study.encoder.training)
            run = study.mapped_run(shots)
            publish_map(
                maps / f"{shots}shot.tif",
                study.class_map(shots),
                record,
                classes,
                title=f"{record.name}: {shots} labelled pixel{'s' if shots > 1 else ''} a class",
                subtitle=f"seed {run.episode.seed}, OA {run.scores.oa:.1f} %, encoder: {study.encoder.describe()}",
                encoder=study.encoder.label,
            )
        write_page(folder / PAGE_FILE, study, maps)
        (folder / SUPPORTS_FILE).write_text(json.dumps(supports(study)) + "\n", encoding="utf-8")
        text = json.dumps(results(study), indent=1, allow_nan=False)
        (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")


@contextmanager
def _published(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place once all is written, and goes where anything fails."""
    check_destination(out)
    partial = out.parent / f".{out.name}.partial"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
