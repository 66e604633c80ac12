"""The wheel in an environment of its own: its core maps a scene with a saved classifier, and each extra resolves."""

import json
import os
import subprocess
import sys
import time
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import rasterio
from small_study import build, command, write_encoder, write_small_scene

from shards.extras import EXTRA_OF

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

REPOSITORY = Path(__file__).resolve().parents[2]
# of the versions that the wheel admits, the one that may lie on disk as a small build for CPUs
TORCH = "torch==2.13.0"
SETUP = ConfigParser()
SETUP.read(REPOSITORY / "setup.cfg")
EXTRAS = sorted(SETUP["options.extras_require"].keys() - {"dev"})
# stands in for a machine without a network: every connection but those within the machine is refused
NO_NETWORK = """
import socket

def refuse(self, address):
    if self.family != socket.AF_UNIX:
        raise OSError(f"the test allows no network: {address}")
    return connect(self, address)

connect, socket.socket.connect = socket.socket.connect, refuse
"""


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel's core in it."""

    folder: Path

    def run(self, program: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
        """Runs a program of the environment outside the repository, without the caller's own paths to Python code."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return subprocess.run(
            [str(self.folder / "bin" / program), *map(str, arguments)],
            cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel as ``make dist`` builds it."""
    out = tmp_path_factory.mktemp("dist")
    uv = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
    subprocess.run([*uv, "--python", sys.executable, "--out-dir", str(out)], cwd=REPOSITORY, check=True)
    (found,) = out.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """An empty environment, then ``pip install WHEEL``, and from then on no network."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    core, start = Installed(folder), time.monotonic()
    done = core.run("pip", "install", "--quiet", "--disable-pip-version-check", TORCH, wheel)
    seconds = time.monotonic() - start
    assert done.returncode == 0, done.stderr
    (site,) = folder.glob("lib/python3*/site-packages")
    packages = len(list(site.glob("*.dist-info")))
    megabytes = sum(path.stat().st_size for path in site.rglob("*") if path.is_file()) / 1e6
    size = wheel.stat().st_size / 1e3
    print(f"core: {packages} packages, {megabytes:,.0f} MB, installed in {seconds:.0f} s; wheel {size:,.0f} kB")
    (site / "sitecustomize.py").write_text(NO_NETWORK)
    return core


def test_the_core_holds_no_library_of_an_extra(installed: Installed) -> None:
    check = f"import importlib.util; print([n for n in {[*EXTRA_OF]} if importlib.util.find_spec(n)])"
    assert installed.run("python", "-c", check).stdout.strip() == "[]"


def test_the_core_builds_an_archive_and_maps_a_scene_with_a_saved_classifier(
    installed: Installed, tmp_path: Path
) -> None:
    scene = write_small_scene(tmp_path / "scene", "stripes")
    archive = build([str(scene)], tmp_path / "archive")
    encoder = write_encoder(archive, "stripes", tmp_path / "encoder")
    study = tmp_path / "study"
    places = ("--archive", tmp_path / "archive", "--encoder", encoder, "--scene", "stripes")
    assert command("fewshot.py", *places, "--shots", "2", "--seeds", "1", "--quick", "--out", study).status == 0

    sharded = installed.run("diffclip", "shard", scene, "--out", tmp_path / "other", "--tile-size", 16, "--halo", 3)
    assert sharded.returncode == 0, sharded.stderr
    assert f"fingerprint {archive.fingerprint}" in sharded.stdout
    verified = installed.run("diffclip", "shard", "--verify", tmp_path / "other")
    assert verified.returncode == 0, verified.stderr

    maps = [tmp_path / "here.tif", tmp_path / "there.tif"]
    words = ("--model", study / "model-2shot", "--archive", tmp_path / "archive", "--scene", "stripes", "--out")
    assert command("predict.py", *words, maps[0]).status == 0
    mapped = installed.run("diffclip", "predict", *words, maps[1])
    assert mapped.returncode == 0, mapped.stderr
    assert "pip install 'diffclip-dist[report]'" in mapped.stdout
    here, there = (rasterio.open(file).read(1) for file in maps)
    # another version of torch rounds otherwise, so that a pixel between two classes may fall to the other one
    assert np.mean(here == there) > 0.98


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("pretrain", "--dry-run"), "train"),
        (("fewshot", "--quick"), "report"),
        (("shard", "--verify", "s3://bucket/archive"), "cloud"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_command_that_needs_an_extra_says_which(installed: Installed, words: tuple[str, ...], extra: str) -> None:
    done = installed.run("diffclip", *words)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"pip install 'diffclip-dist[{extra}]'" in line


def test_the_wheel_carries_the_benchmarks(installed: Installed) -> None:
    done = installed.run("diffclip", "benchmark", "throughput", "--no-such-option")
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


@pytest.fixture(scope="session")
def resolved(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The packages that pip would install for the wheel with all its extras, which must not exclude each other."""
    report = tmp_path_factory.mktemp("resolved") / "report.json"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report", str(report),
         TORCH, f"diffclip-dist[{','.join(EXTRAS)}] @ {wheel.as_uri()}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {item["metadata"]["name"].lower().replace("_", "-") for item in json.loads(report.read_text())["install"]}


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_resolves_and_brings_what_it_is_for(extra: str, resolved: set[str]) -> None:
    wanted = {line.partition(">")[0].partition("[")[0] for line in SETUP["options.extras_require"][extra].split()}
    assert {name.lower().replace("_", "-") for name in wanted} <= resolved
