"""Building archives: how many workers help how much, how much memory a large scene takes, what a kill costs."""

import contextlib
import hashlib
import json
import math
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import yaml
from archive_tasks import MANY_SHARDS, houston_like, raw_mb
from report import Row, median_row

from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.build.parallel import ray_session
from shards.open_scene import open_scene
from shards.scene.source import SceneSource

KILLS: Final = 10


def folder_sha256(folder: Path) -> str:
    """Hash over the paths and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def in_files(folder: Path, side: int) -> SceneSource:
    """The generated scene written to .npy files beforehand, so that building is what is measured."""
    source = houston_like(side)
    rows, cols = slice(0, side), slice(0, side)
    folder.mkdir()
    for modality in source.modalities:
        np.save(folder / f"{modality.name}.npy", source.read(modality.name, rows, cols)[0])
    files = {modality.name: {"files": f"{modality.name}.npy"} for modality in source.modalities}
    (folder / "scene.yaml").write_text(yaml.safe_dump({"name": "in-files", "modalities": files}))
    return open_scene(str(folder))


def worker_rows(scratch: Path, side: int, repeats: int) -> list[Row]:
    """One row a source and number of workers, taken in turns; workers stand ready, as on a cluster."""
    rows: list[Row] = []
    start = time.perf_counter()
    with ray_session(2):
        ready_s = time.perf_counter() - start
        sources = {"pixels in files": in_files(scratch / "files", side), "pixels made up": houston_like(side)}
        for kind, source in sources.items():
            taken: dict[int, list[Row]] = {1: [], 2: []}
            hashes = set()
            for _ in range(repeats + 1):
                for workers, turns in taken.items():
                    out = scratch / f"workers-{workers}"
                    shutil.rmtree(out, ignore_errors=True)
                    start = time.perf_counter()
                    build_archive([source], out, ArchiveSettings(), workers=workers)
                    turns.append({"build_s": time.perf_counter() - start})
                    hashes.add(folder_sha256(out))
            medians = {workers: median_row(turns[1:]) for workers, turns in taken.items()}
            alone = float(str(medians[1]["build_s"]))
            rows += [
                {
                    "part": "building",
                    "source": kind,
                    "workers": workers,
                    "raw_mb": raw_mb(side),
                    **median,
                    "speed_up_ratio": alone / float(str(median["build_s"])),
                    "same_bytes": len(hashes) == 1,
                    "sha256": min(hashes),
                    "ray_start_s": ready_s,
                }
                for workers, median in medians.items()
            ]
    return rows


def memory_rows(scratch: Path, side: int) -> list[Row]:
    """A generated scene built by one process and streamed by another; the most memory that each ever held."""
    rows: list[Row] = []
    for task in ("build", "stream"):
        with in_process(task, scratch / "large", side) as process:
            assert process.stdout is not None
            spent = json.loads(process.stdout.read().splitlines()[-1])
        rows.append({"part": "memory", "task": task, "raw_gb": raw_mb(side) / 1e3, **spent})
    shutil.rmtree(scratch / "large")
    return rows


def kill_rows(scratch: Path, side: int, kills: int) -> list[Row]:
    """Builds killed with SIGKILL at random moments, each then started again to its end; one row over all."""
    source = houston_like(side)
    start = time.perf_counter()
    wanted = build_archive([source], scratch / "undisturbed", MANY_SHARDS).fingerprint
    duration = time.perf_counter() - start
    expected = folder_sha256(scratch / "undisturbed")
    rng = np.random.default_rng(0)
    same, kept, killed = 0, 0, 0
    moments: list[float] = []
    while killed < kills:
        out = scratch / f"killed-{len(moments)}"
        moments.append(float(rng.uniform(0, duration)))
        with in_process("shards", out, side) as process:
            assert process.stdout is not None
            process.stdout.readline()  # the build begins now
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments[-1])
            process.kill()
        if out.exists():  # it was quicker than ever before: no kill
            shutil.rmtree(out)
            continue
        killed += 1
        kept += len(list((out.parent / f".{out.name}.building" / "journal").rglob("*.json")))
        fingerprint = build_archive([source], out, MANY_SHARDS).fingerprint
        same += fingerprint == wanted and folder_sha256(out) == expected
        shutil.rmtree(out)
    return [
        {
            "part": "kills",
            "kills": kills,
            "restarts_with_the_same_bytes": same,
            "shards_kept_percent": 100 * kept / (kills * math.ceil(side / MANY_SHARDS.tile_size) ** 2),
            "earliest_kill_s": min(moments),
            "latest_kill_s": max(moments),
            "undisturbed_s": duration,
        }
    ]


def in_process(task: str, out: Path, side: int) -> "subprocess.Popen[str]":
    """Runs a task of `archive_process.py` in an interpreter of its own, which holds no memory of ours."""
    script = Path(__file__).with_name("archive_process.py")
    command = [sys.executable, str(script), task, str(out), str(side)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603  a script of our own
