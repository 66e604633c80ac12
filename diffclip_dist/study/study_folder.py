"""Writes a study's folder: all of it, or nothing."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffclip_dist.fewshot.classifier import save_classifier
from diffclip_dist.fewshot.classifier_card import MeasuredFigures, write_classifier_card
from diffclip_dist.mapping.map_files import publish_map, write_map
from diffclip_dist.mapping.map_picture import render_map
from diffclip_dist.mapping.predict import MapJob
from diffclip_dist.study.fit_study import FitStudy
from diffclip_dist.study.page import REFERENCE_FILE, picture_name, write_page
from diffclip_dist.study.results import results, supports
from diffclip_dist.study.scene_pictures import LARGEST_SIDE, draw_errors, draw_learned
from diffclip_dist.study.study import Study
from shards.archive.manifest import SceneRecord
from shards.archive.publish import publish_tree, restore_earlier
from shards.errors import BadInput
from shards.preview.scene_picture import scene_picture

Report = Callable[[str, int, int], None]

RESULTS_FILE = "results.json"
SUPPORTS_FILE = "supports.json"
PAGE_FILE = "report.html"
MAPS_FOLDER = "maps"


def check_destination(out: Path, force: bool) -> None:
    """Refuses a folder that a study may not be written to.

    Args:
        out: absent, empty, or with `force` an earlier study.
        force: whether an earlier study may be replaced.

    Raises:
        BadInput: `out` holds something, or is a file.
    """
    restore_earlier(out.resolve())
    if out.exists() and not out.is_dir():
        raise BadInput(f"--out {out}: is a file, expected a folder")
    if out.is_mount():
        raise BadInput(f"--out {out}: is where a disk is mounted and cannot be renamed; name a folder inside it")
    if not out.is_dir() or not any(out.iterdir()):
        return
    if not (out / RESULTS_FILE).is_file():
        raise BadInput(f"--out {out}: holds something other than an earlier few-shot study; name another folder")
    if not force:
        raise BadInput(f"--out {out}: holds a few-shot study already; give --force to replace it, or another --out")


def publish(study: Study | FitStudy, out: Path, force: bool, report: Report = lambda *_: None) -> None:
    """Writes results.json, supports.json, classifiers, maps and report.html.

    Args:
        study: what to write.
        out: absent, empty, or with `force` an earlier study, which stays whole until this one is.
        force: whether an earlier study may be replaced.
        report: called with a phase, steps done and steps in all, where a map is computed.

    Raises:
        BadInput: `out` cannot be written or holds something else.
    """
    with _published(out, force) as folder:
        maps = folder / MAPS_FOLDER
        maps.mkdir()
        record, classes = study.scene.record, study.classes
        reference = study.reference_map(LARGEST_SIDE)
        render_map(
            maps / REFERENCE_FILE,
            reference.class_ids,
            classes,
            title=f"{record.name}: reference",
            subtitle="labelled pixels",
            generated=record.generated,
            empty="unlabelled",
            pixels=reference.pixels,
        )
        picture = scene_picture(study.scene, LARGEST_SIDE)
        for kept in study.kept:
            model = folder / kept.model_folder
            save_classifier(model, kept.classifier, study.encoder.training)
            measured = MeasuredFigures(kept.figures, kept.per_class, study.figures_are, study.how, study.notes)
            write_classifier_card(model, kept.classifier.config, study.encoder.training, measured)
            draw_learned(maps / picture_name(kept, "labels"), picture, kept, classes, record)
            draw_errors(maps / picture_name(kept, "errors"), picture, kept, record)
            file = maps / f"{kept.file_key}.tif"
            if isinstance(kept.class_map, MapJob):
                write_map(file, kept.class_map, report=_mapped(report, record))
            elif kept.class_map is not None:
                publish_map(
                    file,
                    kept.class_map,
                    record,
                    classes,
                    title=f"{record.name}: {kept.title}",
                    subtitle=f"encoder: {study.encoder.describe()}",
                    encoder=study.encoder.label,
                )
        write_page(folder / PAGE_FILE, study, maps)
        (folder / SUPPORTS_FILE).write_text(json.dumps(supports(study)) + "\n", encoding="utf-8")
        text = json.dumps(results(study), indent=1, allow_nan=False)
        (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")


def _mapped(report: Report, record: SceneRecord) -> Callable[[int], None]:
    """Reports a map's pixels that are done."""
    return lambda done: report("mapping", done, record.height * record.width)


@contextmanager
def _published(out: Path, force: bool) -> Iterator[Path]:
    """A folder beside `out` that takes its place once all is written, and is removed where anything fails."""
    check_destination(out, force)
    target = out.resolve()
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    except OSError as error:
        raise BadInput(f"--out {out}: cannot be written: {error.strerror}") from error
    try:
        yield partial
        publish_tree(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
