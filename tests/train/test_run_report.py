"""A run's report: one page with the probe, the loss, the speed and the picture, for a run of any length."""

import gc
import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from small_runs import SMALL_MODEL, Pretrain

from diffclip_dist.train.monitor import run_report
from diffclip_dist.train.monitor.run_history import RunHistory
from diffclip_dist.train.monitor.run_report import keep_report
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.single_process import pretrain_single_process


def logged(step: int, **more: Any) -> str:
    return json.dumps({"step": step, "loss": 1.0 / step, "samples_per_s": 10.0, "data_wait_fraction": 0.1, **more})


def test_the_page_holds_all_that_the_run_shows_and_asks_no_network(generated_archive: Path, tmp_path: Path) -> None:
    given = {"archive": str(generated_archive), "run_dir": str(tmp_path), "global_batch": 24, "steps": 4}
    more = ["reconstruct_windows=4", "checkpoint_every=2", "probe.scene=small", "probe.pixels=60"]
    config = resolve_config(None, given, [*SMALL_MODEL, *more])
    (tmp_path / "config.yaml").write_text(config.to_yaml())  # as the driver does before the workers start
    with keep_report(tmp_path):
        pretrain_single_process(config)
    page = (tmp_path / "report.html").read_text()
    pictures = re.findall(r'<img alt="([^"]*)" src="data:image/png;base64,', page)
    assert pictures == [
        "Accuracy of the probes over steps",
        "Loss over steps",
        "Samples a second and data wait over steps",
        "Masked windows, their reconstruction and the truth",
    ]
    assert "GENERATED SCENE" in page
    probes = [json.loads(line)["probe"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()[1::2]]
    for probe in probes:
        assert f"<td>{probe['knn']:.1f}</td><td>{probe['linear']:.1f}</td>" in page
    assert "4 of 4 (100%)" in page
    assert 'name="viewport"' in page
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|@import|url\(", page)


def test_a_run_without_probe_and_pictures_has_a_page_too(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(resolve_config(None, {"run_dir": str(tmp_path), "steps": 9}, []).to_yaml())
    with keep_report(tmp_path):
        pass  # ended before its first step
    page = (tmp_path / "report.html").read_text()
    assert "none yet" in page
    assert "<img" not in page


def test_a_report_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.yaml").write_text(resolve_config(None, {"run_dir": str(tmp_path)}, []).to_yaml())
    (tmp_path / "report.html").mkdir()
    with keep_report(tmp_path):
        pass
    assert "report.html: not written: Is a directory" in capsys.readouterr().out


def test_charts_of_earlier_reports_are_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text(resolve_config(None, {"run_dir": str(tmp_path), "steps": 9}, []).to_yaml())
    monkeypatch.setattr(run_report, "_EVERY_S", 0.01)
    written, write = [], run_report.write_report
    monkeypatch.setattr(run_report, "write_report", lambda history: (write(history), written.append(history)))
    gc.collect()
    before = figures()
    gc.disable()  # in a driver, which holds far more objects than this test, Python collects late
    more = {"samples_per_s_per_worker": 10.0, "mfu": 0.1}
    try:
        with keep_report(tmp_path), (tmp_path / "metrics.jsonl").open("a") as metrics:
            for step in range(1, 4):
                metrics.write(f"{logged(step, **more)}\n")
                metrics.flush()
                deadline = time.monotonic() + 60
                while len(written) < step and time.monotonic() < deadline:
                    time.sleep(0.01)
        held = figures()
    finally:
        gc.enable()
    assert len(written) >= 4
    assert held == before


def figures() -> int:
    """Charts that the process holds."""
    return sum(type(one) is Figure for one in gc.get_objects())


def test_a_long_run_is_thinned_and_keeps_its_ends_and_its_probes(tmp_path: Path) -> None:
    history = RunHistory(tmp_path)
    probe = {"probe": {"knn": 1.0, "linear": 2.0}}
    lines = [logged(step, **(probe if step % 1000 == 0 else {})) for step in range(1, 20_001)]
    with (tmp_path / "metrics.jsonl").open("w") as metrics:
        for start in range(0, len(lines), 777):
            metrics.write("".join(f"{line}\n" for line in lines[start : start + 777]))
            metrics.flush()
            assert history.update()
            kept = [one["step"] for one in history.steps]
            assert (kept[0], kept[-1]) == (1, min(start + 777, len(lines)))
            assert kept == sorted(set(kept))
    assert not history.update()
    assert 900 < len(kept) <= 2001
    assert len({after - before for before, after in itertools.pairwise(kept[:-1])}) == 1
    assert [one["step"] for one in history.probed] == [*range(1000, 20_001, 1000)]


def test_steps_that_are_taken_again_take_the_place_of_the_lost_ones(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(f"{logged(step)}\n" for step in range(1, 7)))
    history = RunHistory(tmp_path)
    history.update()
    newer = tmp_path / "newer"
    newer.write_text("".join(f"{logged(step, again=True)}\n" for step in range(1, 4)))
    newer.replace(file)
    history.update()
    assert [one["step"] for one in history.steps] == [1, 2, 3]
    assert all(one["again"] for one in history.steps)


@pytest.mark.slow
def test_the_command_writes_it(pretrain: Pretrain, tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", "--steps", "3")
    assert run.status == 0, run.err
    assert "3 of 3 (100%)" in (tmp_path / "run" / "report.html").read_text()
