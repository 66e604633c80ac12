"""``diffclip doctor``: what would stop a run is named with its remedy, and makes the exit status 1."""

import os
import socket
import time
from pathlib import Path

import pytest

from diffclip_dist.cli.main import main
from diffclip_dist.train.doctor.machine import check_build_locks, check_compiler, check_ray
from diffclip_dist.train.doctor.planned_run import check_place


@pytest.fixture(autouse=True)
def bare_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No locks and no Ray of this machine's user."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


def doctor(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["diffclip", "doctor", *words])
    return main()


def test_a_machine_that_can_pretrain_gets_status_0_and_nothing_is_left(
    tmp_path: Path, generated_archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "runs" / "first"
    assert doctor(monkeypatch, "--archive", str(generated_archive), "--run-dir", str(run)) == 0
    said = capsys.readouterr().out
    assert "STOP" not in said
    for expected in ("Python", "deepspeed", "build locks", "RAY_ADDRESS is not set", "can be read", "can be written"):
        assert expected in said
    assert not list(tmp_path.iterdir())


def test_what_would_stop_a_run_is_named_with_its_remedy(
    tmp_path: Path, generated_archive: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "extensions" / "py311_cpu" / "async_io" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    os.utime(lock, (time.time() - 7200, time.time() - 7200))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("diffclip_dist.train.doctor.planned_run._available_memory", lambda: 10**9)
    memory = ("--set", "preset=huge", "--set", "micro_batch=40", "--set", "global_batch=40")
    assert doctor(monkeypatch, "--archive", str(generated_archive), "--run-dir", str(tmp_path / "run"), *memory) == 1
    stops = [line for line in capsys.readouterr().out.splitlines() if line.startswith("STOP")]
    assert any(f"{lock} is 120 minutes old; if nothing is built now: rm '{lock}'" in line for line in stops)
    assert any("memory" in line and "micro_batch=20" in line for line in stops)
    assert doctor(monkeypatch, "--archive", str(tmp_path / "nowhere")) == 1
    assert "diffclip shard" in capsys.readouterr().out


def test_a_lock_of_a_build_that_goes_on_is_not_stale(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    (found,) = check_build_locks({"TORCH_EXTENSIONS_DIR": str(tmp_path)})
    assert found.weight == "good"


def test_a_cluster_is_asked_whether_it_answers_and_for_its_token(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
        reached, missing = check_ray({"RAY_ADDRESS": address, **token})
        assert (reached.weight, missing.weight) == ("good", "stop")
        assert "RAY_AUTH_TOKEN" in missing.remedy
        (tmp_path / "token").write_text("secret")
        _, there = check_ray({"RAY_ADDRESS": address, **token})
        assert there.weight == "good"
        assert "secret" not in str(there)
        assert [one.weight for one in check_ray({"RAY_ADDRESS": address})] == ["good", "note"]
    (refused, _) = check_ray({"RAY_ADDRESS": address})
    assert refused.weight == "stop"


def test_a_missing_compiler_stops_nothing(tmp_path: Path) -> None:
    found = check_compiler({"PATH": str(tmp_path)})
    assert found.weight == "note"
    assert "g++" in found.remedy


def test_places_that_are_full_or_cannot_be_written_are_named(tmp_path: Path) -> None:
    *_, full = check_place("storage_path", str(tmp_path / "new"), 10**18)
    assert full.weight == "stop"
    assert "checkpoints need" in full.found
    (tmp_path / "file").touch()
    *_, file = check_place("run_dir", str(tmp_path / "file" / "run"), None)
    assert file.weight == "stop"
    assert "run_dir" in file.found
