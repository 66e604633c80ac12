"""benchmarks/archive_io.py: every part runs, in the contract's JSON, and its figures agree with each other."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from archive_building import folder_sha256
from archive_codecs import CHOSEN, Sample, by_codec, candidates, codec_rows, tried
from process_memory import peak_mib
from zarr.codecs import BytesCodec

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "archive_io.py"


@pytest.mark.slow
def test_a_quick_run_measures_every_part(tmp_path: Path) -> None:
    out = tmp_path / "figures.json"
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--json", str(out)],
        capture_output=True, text=True, timeout=580,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    assert out.with_suffix(".png").stat().st_size > 10_000
    report = json.loads(out.read_text())
    rows = {
        part: [row for row in report["rows"] if row["part"] == part] for part in {r["part"] for r in report["rows"]}
    }
    assert rows.keys() == {"reading", "codecs", "footprint", "building", "memory", "kills"}
    assert rows["reading"][0]["way"] == "tile archive"
    assert all(row["windows_per_s"] > 0 for row in rows["reading"])
    assert all(row["same_bytes"] for row in rows["building"])
    assert {row["workers"] for row in rows["building"]} == {1, 2}
    assert len({row["sha256"] for row in rows["building"] if row["source"] == "pixels in files"}) == 1
    for row in rows["footprint"]:
        # a tar holds the tiles, halo included, and little more
        assert row["tiles_over_raw_ratio"] == pytest.approx(1 + row["halo_over_raw_ratio"], rel=0.02)
    (kills,) = rows["kills"]
    assert kills["restarts_with_the_same_bytes"] == kills["kills"] == 2
    assert [row["task"] for row in rows["memory"]] == ["build", "stream"]
    assert sum(row["chosen"] for row in rows["codecs"]) == len({row["sample"] for row in rows["codecs"]})


def test_codecs_give_back_every_value_and_the_chosen_one_is_the_archive_s() -> None:
    values = np.cumsum(np.random.default_rng(0).integers(-3, 4, (40, 40, 20)), axis=2).astype(np.int16)
    sample = Sample("drawn", values, np.ones((40, 40), np.bool_))
    rows = codec_rows([sample], repeats=1)
    assert {row["codec"] for row in rows} == candidates(values.dtype).keys() >= {CHOSEN}
    plain = next(row for row in rows if row["codec"] == "none")
    assert plain["disk_over_raw_ratio"] == pytest.approx(1, rel=0.01)
    summary = by_codec(rows)
    ratios = [row["disk_over_raw_ratio"] for row in summary]
    assert ratios == sorted(ratios)
    assert [row["codec"] for row in summary if row["chosen"]] == [CHOSEN]


def test_a_codec_that_loses_something_is_found_out() -> None:
    values = np.random.default_rng(0).normal(size=(8, 8, 3)).astype(np.float32)
    sample = Sample("drawn", values, np.ones((8, 8), np.bool_))
    from zarr.codecs.numcodecs import BitRound

    lossy = {"serializer": BytesCodec(), "filters": [BitRound(keepbits=4)], "compressors": None}
    with pytest.raises(ValueError, match="not what was written"):
        tried(sample, "bit rounding", lossy)


def test_the_folder_hash_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    first = folder_sha256(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    renamed = folder_sha256(tmp_path)
    (tmp_path / "b").write_bytes(b"13")
    assert len({first, renamed, folder_sha256(tmp_path)}) == 3


def test_peak_memory_is_that_of_this_process() -> None:
    before = peak_mib()
    held = bytearray(os.urandom(1)) * (200 << 20)
    assert peak_mib() > before + 100
    del held
    assert peak_mib() > before + 100
