"""The benchmarks' report: the contract's JSON, medians with their spread, and a table a person can read."""

import io
import json
import math
from pathlib import Path

import pytest
from report import benchmark_parser, describe_machine, median_row, print_table, repeated, write_json
from rich.console import Console

from shards.errors import BadInput


def test_the_json_holds_machine_config_and_rows(tmp_path: Path) -> None:
    rows = [{"name": "memory", "workers": 2, "windows_per_s": 31250.5, "kept": True, "note": None}]
    write_json(tmp_path / "figures.json", {"seed": 3}, rows)
    report = json.loads((tmp_path / "figures.json").read_text())
    assert report.keys() == {"machine", "config", "rows"}
    assert report["config"] == {"seed": 3}
    assert report["rows"] == rows
    assert [path.name for path in tmp_path.iterdir()] == ["figures.json"]


@pytest.mark.parametrize("row", [{"speed": 3.0}, {"mfu": 1}, {"oa_percent": math.nan}, {"loss_ratio": math.inf}])
def test_numbers_without_a_unit_or_a_value_are_refused_and_nothing_is_written(tmp_path: Path, row: dict) -> None:
    with pytest.raises(ValueError, match=r"unit|JSON compliant"):
        write_json(tmp_path / "figures.json", {}, [row])
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="--json"):
        write_json(tmp_path / "absent" / "figures.json", {}, [])


def test_the_machine_names_what_figures_depend_on() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["memory_gib"] > 0
    assert machine["processor"]
    assert {"torch", "numpy", "python", "gpus"} <= machine.keys()


def test_repeats_become_their_median_with_the_spread_kept() -> None:
    rows = [{"name": "a", "workers": 2, "seconds_s": s} for s in (5.0, 1.0, 2.0)]
    assert median_row(rows) == {
        "name": "a",
        "workers": 2,
        "seconds_s": 2.0,
        "lowest_seconds_s": 1.0,
        "highest_seconds_s": 5.0,
        "repeats": 3,
    }


@pytest.mark.parametrize(
    "rows", [[], [{"a_s": 1}, {"b_s": 1}], [{"name": "a"}, {"name": "b"}], [{"ok": True}, {"ok": False}]]
)
def test_rows_that_are_no_repeats_of_each_other_are_refused(rows: list[dict]) -> None:
    with pytest.raises(ValueError, match=r"same keys|differs between repeats"):
        median_row(rows)


def test_the_first_run_warms_up_and_is_not_counted() -> None:
    answers = iter((100.0, 1.0, 3.0))
    row = repeated(lambda: {"time_s": next(answers)}, repeats=2)
    assert row["time_s"] == 2.0
    assert row["highest_time_s"] == 3.0


def test_the_table_shows_every_row_and_folds_the_spread_into_one_cell() -> None:
    out = io.StringIO()
    rows = [median_row([{"way": "tiles", "windows_per_s": w} for w in (30000.0, 31234.0, 32000.0)]), {"way": "zarr"}]
    print_table("Windows", rows, Console(file=out, width=120))
    text = out.getvalue()
    assert "Windows" in text
    assert "windows per s" in text
    assert "31,234 (30,000 to 32,000)" in text
    assert "zarr" in text
    assert "lowest" not in text


def test_every_benchmark_takes_quick_and_json() -> None:
    arguments = benchmark_parser("speed").parse_args(["--quick", "--json", "a.json"])
    assert arguments.quick
    assert arguments.json == Path("a.json")
    assert benchmark_parser("speed").parse_args([]).json is None
