"""Snapshots among a node's temporary files: what a worker holds stays, what nobody holds goes."""

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest

from diffclip_dist.train.checkpoint.snapshot_folder import SnapshotFolder, remove_abandoned


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_a_snapshot_stays_while_it_is_held(temporary_files: Path) -> None:
    folder = SnapshotFolder()
    (folder.path / "state").touch()
    (temporary_files / "diffclip-checkpoint-abandoned").mkdir()
    (temporary_files / "of-another-program").mkdir()
    remove_abandoned()
    assert {path.name for path in temporary_files.iterdir()} == {folder.path.name, "of-another-program"}
    assert (folder.path / "state").exists()
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.timeout(30)
def test_a_file_system_without_locks_holds_snapshots_all_the_same(
    temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_locks(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", without_locks)
    folder = SnapshotFolder()
    remove_abandoned()
    assert list(temporary_files.iterdir()) == [folder.path]
    folder.remove()
    assert not folder.path.exists()
