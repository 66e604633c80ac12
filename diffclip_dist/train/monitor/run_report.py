"""A run on one page of HTML that needs no other file and no network, written while the run goes on."""

import base64
import gc
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import jinja2

from diffclip_dist.log_lines import log
from diffclip_dist.train.monitor.reconstruction import FIGURES_FILE, PICTURE_FILE
from diffclip_dist.train.monitor.run_charts import draw_loss, draw_probe, draw_throughput
from diffclip_dist.train.monitor.run_history import RunHistory
from diffclip_dist.train.monitor.run_status import run_status, status_lines
from diffclip_dist.train.run_files import CONFIG_FILE, PROBE_FILE, REPORT_FILE
from shards.archive.store import LocalStore

TEMPLATE: Final = "run_report.html"
_EVERY_S: Final = 60.0


@contextmanager
def keep_report(run_dir: Path) -> Iterator[None]:
    """Writes ``RUN/report.html`` about every minute while steps are logged, and when the block ends.

    The driver does so: its process waits meanwhile, so that no worker loses time. A report that cannot be written, for
    instance on a full disk, does not end the run.
    """
    stop = threading.Event()
    history = RunHistory(run_dir)

    def keep() -> None:
        ended = False
        while not ended:
            ended = stop.wait(_EVERY_S)
            try:
                if history.update() or ended:
                    write_report(history)
            except OSError as error:
                log(f"{run_dir / REPORT_FILE}: not written: {error.strerror or error}", logging.WARNING)
            # Matplotlib's figures refer to themselves, 3 MiB each. The driver holds so many objects that Python looks
            # for such circles only after many reports: without this it grew by 150 MiB in the first half hour
            gc.collect()

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join()


def write_report(history: RunHistory) -> None:
    """Writes ``RUN/report.html`` from what the run's folder holds and has logged."""
    run_dir = history.run_dir
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("diffclip_dist.train.monitor", "."), autoescape=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    probe = _read_json(run_dir / PROBE_FILE)
    reconstruction = _read_json(run_dir / FIGURES_FILE)
    picture = run_dir / PICTURE_FILE
    text = environment.get_template(TEMPLATE).render(
        name=run_dir.name,
        status=status_lines(run_status(run_dir)),
        generated=bool((probe or {}).get("generated") or (reconstruction or {}).get("generated_scenes")),
        probe=probe,
        probed=history.probed,
        probe_chart=None if probe is None else _inline(draw_probe(history.probed, probe)),
        loss_chart=_inline(draw_loss(history.steps)) if history.steps else None,
        throughput_chart=_inline(draw_throughput(history.steps)) if history.steps else None,
        picture=_inline(picture.read_bytes()) if picture.is_file() else None,
        settings=(run_dir / CONFIG_FILE).read_text(),
    )
    LocalStore(run_dir).write(REPORT_FILE, text.encode())


def _read_json(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    content: dict[str, Any] = json.loads(file.read_bytes())
    return content


def _inline(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
