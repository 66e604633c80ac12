"""Nodes of a real Ray cluster that do not hold to what a run needs: named before any worker starts."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ray_nodes import RayNodes, ray_nodes
from small_runs import Run, pretrain_command

import diffclip_dist
from shards.archive.archive import Archive

ARGUMENTS = ("--steps", "2", "--workers", "1")


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    """A head that directs, and works too."""
    with ray_nodes() as cluster:
        cluster.start("head", cores=1)
        yield cluster


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty folder, and room beside it for the run."""
    folder = tmp_path / "place"
    folder.mkdir()
    return folder


def run_on(nodes: RayNodes, folder: Path, archive: Path, *settings: str) -> Run:
    """A run started from elsewhere than the repository, whose folder Ray would put before a node's own."""
    command = pretrain_command(folder, archive, ARGUMENTS, settings)
    environment = {**nodes.environment, "RAY_ADDRESS": nodes.address}
    ended = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=250)
    return Run(ended.returncode, ended.stdout, ended.stderr, folder)


def covering(folder: Path, size: str = "1m") -> Sequence[str]:
    """A command prefix for a process that sees an empty disk in place of a folder."""
    inside = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} none "{folder}" && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*inside, "true"], capture_output=True).returncode:
        pytest.skip("this machine forbids mount namespaces")
    return inside


def fault_of(run: Run) -> str:
    assert run.status == 2, run.err
    (line,) = run.err.splitlines()
    assert line.startswith("error: node 127.0.0.1 (")
    assert not run.folder.exists()
    return line.partition("): ")[2]


@pytest.mark.timeout(400)
def test_a_node_with_another_version_is_named_and_nothing_starts(
    nodes: RayNodes, generated_archive: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other" / "diffclip_dist-9.9.9.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: diffclip-dist\nVersion: 9.9.9\n")
    path = os.pathsep.join(filter(None, [str(other.parent), nodes.environment.get("PYTHONPATH")]))
    nodes.start("other", cores=1, PYTHONPATH=path)
    run = run_on(nodes, tmp_path / "deep" / "run", generated_archive)
    nodes.remove("other")
    assert fault_of(run) == f"expected diffclip-dist {diffclip_dist.__version__}, as on the driver, found 9.9.9"
    assert not run.folder.parent.exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_without_the_archive_is_named(
    nodes: RayNodes, generated_archive: Path, place: Path, tmp_path: Path
) -> None:
    archive = place / "archive"
    shutil.copytree(generated_archive, archive)
    nodes.start("blind", cores=1, inside=covering(archive))
    run = run_on(nodes, tmp_path / "run", archive)
    nodes.remove("blind")
    fingerprint = Archive.open(archive).fingerprint
    assert fault_of(run).startswith(f"expected the archive {fingerprint} at {archive}, found: {archive}: no archive")


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(("folder", "setting"), [("run", "--run-dir"), ("checkpoints", "storage_path")])
def test_a_node_that_sees_another_folder_is_named(
    nodes: RayNodes, generated_archive: Path, place: Path, tmp_path: Path, folder: str, setting: str
) -> None:
    nodes.start("apart", cores=1, inside=covering(place))
    where = {"run": tmp_path / "run", "checkpoints": tmp_path / "checkpoints"} | {folder: place / folder}
    run = run_on(nodes, where["run"], generated_archive, f"storage_path={where['checkpoints']}")
    nodes.remove("apart")
    expected = f"expected {where[folder]} ({setting}) to be the driver's, a place that every node sees, found another"
    assert fault_of(run) == expected
    assert not where["checkpoints"].exists()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_node_without_room_for_a_checkpoint_is_named(
    nodes: RayNodes, generated_archive: Path, place: Path, tmp_path: Path
) -> None:
    nodes.start("narrow", cores=1, inside=covering(place, size="64k"), TMPDIR=str(place))
    run = run_on(nodes, tmp_path / "run", generated_archive)
    nodes.remove("narrow")
    fault = fault_of(run)
    assert " free for a checkpoint in its folder for temporary files (TMPDIR), found 6" in fault


@pytest.mark.slow
def test_a_run_starts_once_every_node_holds(nodes: RayNodes, generated_archive: Path, tmp_path: Path) -> None:
    run = run_on(nodes, tmp_path / "run", generated_archive, f"storage_path={tmp_path / 'checkpoints'}")
    assert run.status == 0, run.err
    assert list((tmp_path / "checkpoints").glob("attempt-0001/step-00000002-*/checkpoint.json"))
    assert not (run.folder / "checkpoints").exists()
