"""benchmarks/accuracy.py: the contract's JSON, a plot, finished jobs that are not done again, honest comparisons."""

import json
import subprocess
import sys
from pathlib import Path

import accuracy_compare as compare
import accuracy_report
import accuracy_rows
import numpy as np
import pytest
from accuracy_jobs import NAMES_ALONE, SHUFFLED_ALONE, Measurement
from pixel_classifiers import PIXEL_ROWS, Draw, Tables, nearest_mean, ridge_with_field, spread_labels
from pixel_descriptions import morphological_profiles, present, spatial_stack
from scene_halves import halves

from diffclip_dist.fewshot.episodes import Pixels
from shards.archive.archive import Scene
from shards.build.load_scene import load_scene
from shards.errors import BadInput
from shards.scene.array_scene import ArrayScene
from shards.scene.source import Classes

COMMAND = Path(__file__).resolve().parents[2] / "benchmarks" / "accuracy.py"
SIDE = 16


def run(keep: Path, out: Path) -> dict[str, list[dict[str, object]]]:
    ended = subprocess.run(
        [sys.executable, str(COMMAND), "--quick", "--keep", str(keep), "--json", str(out)],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    read: dict[str, list[dict[str, object]]] = json.loads(out.read_text())
    return read


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_a_quick_run_measures_every_kind_of_row_and_does_no_job_twice(tmp_path: Path) -> None:
    report = run(tmp_path / "keep", tmp_path / "first.json")
    assert report.keys() == {"machine", "config", "rows"}
    figures = [row for row in report["rows"] if row["part"] == "figures"]
    rows = {row["classifier"] for row in figures}
    assert rows >= {row.name for row in PIXEL_ROWS}
    assert rows >= {NAMES_ALONE, SHUFFLED_ALONE, compare.BEST_PIXEL_ROW, compare.PUBLISHED}
    assert rows >= {
        f"{label}{said}" for label in (compare.OURS, compare.SHIPPED, compare.RANDOM) for said in ("", ", no names")
    }
    assert rows >= {f"{label}, cosine head" for label in (compare.OURS, compare.RANDOM)}
    assert {row["setting"] for row in figures} == {"random", "blocks", "cross-scene"}
    assert all(row["generated"] for row in figures)
    assert {row["sees"] for row in figures if row["classifier"] == compare.OURS} == {"unlabelled pixels"}
    compared = {(row["classifier"], row["against"]) for row in report["rows"] if row["part"] == "differences"}
    # one scene has no other to choose a row on
    assert compared == {pair for pair in compare.COMPARED if compare.CHOSEN_PIXEL_ROW not in pair}
    assert (tmp_path / "keep" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "## Generated scenes, random" in accuracy_report.page(report)
    jobs = sorted((tmp_path / "keep" / "jobs").iterdir())
    written = [job.stat().st_mtime_ns for job in jobs]
    assert run(tmp_path / "keep", tmp_path / "second.json")["rows"] == report["rows"]
    assert [job.stat().st_mtime_ns for job in jobs] == written


def measurement(row: str, scene: str, oa: tuple[float, ...], shots: int = 2) -> Measurement:
    return Measurement(row, scene, "random", "shots", shots, oa, tuple(value / 2 for value in oa), (0.1,) * len(oa))


def test_a_difference_is_paired_by_draw() -> None:
    ours = measurement("ours", "town", (50.0, 61.0, 72.0))
    svm = measurement("SVM", "town", (40.0, 50.0, 60.0))
    (row,) = compare.difference_rows([ours, svm], ())
    assert (row["classifier"], row["against"]) == ("ours", "SVM")
    assert row["oa_gain_percent"] == pytest.approx(11.0)
    assert row["aa_gain_percent"] == pytest.approx(5.5)


def test_intervals_over_scenes_and_over_draws_are_told_apart() -> None:
    ours = [measurement("ours", scene, (60.0, 70.0)) for scene in ("one", "two", "three")]
    theirs = [
        measurement("SVM", f"{s}", (60.0 - g, 70.0 - g)) for s, g in (("one", 0.0), ("two", 5.0), ("three", 10.0))
    ]
    (row,) = compare.mean_difference_rows([*ours, *theirs], ())
    assert (row["scenes"], row["oa_gain_percent"]) == (3, pytest.approx(5.0))
    # every draw brings the same, the scenes differ
    assert row["oa_gain_draws_from_percent"] == pytest.approx(5.0)
    assert float(str(row["oa_gain_scenes_from_percent"])) < 0.0


def test_the_row_chosen_on_other_scenes_does_not_look_at_its_own() -> None:
    one = [measurement("SVM", "one", (90.0, 90.0)), measurement("1-NN", "one", (10.0, 10.0))]
    two = [measurement("SVM", "two", (20.0, 20.0)), measurement("1-NN", "two", (80.0, 80.0))]
    made = [measurement("1-NN", "synthetic", (1.0, 1.0)), measurement("SVM", "synthetic", (99.0, 99.0))]
    rows = compare.with_choices([*one, *two, *made], ("synthetic",))
    found = {(row.row, row.scene): row.oa_percent[0] for row in rows}
    assert found[compare.BEST_PIXEL_ROW, "one"] == 90.0
    assert found[compare.CHOSEN_PIXEL_ROW, "one"] == 10.0  # 1-NN is best on the other real scene
    assert found[compare.CHOSEN_PIXEL_ROW, "two"] == 20.0
    assert (compare.CHOSEN_PIXEL_ROW, "synthetic") not in found  # there is no other generated scene


def test_real_scenes_come_first_and_each_setting_is_measured() -> None:
    jobs = accuracy_rows.job_list(("synthetic", "samson"), quick=False)
    assert [job.scene for job in jobs] == sorted(job.scene for job in jobs)  # samson, then synthetic
    assert {job.setting for job in jobs} == {"random", "blocks", "cross-scene"}
    assert jobs[0].parts == ("pixels",)


def test_no_job_starts_after_the_minutes_are_over(tmp_path: Path) -> None:
    sources = accuracy_rows.scene_sources(quick=True)
    jobs = accuracy_rows.job_list(tuple(sources), quick=True)
    assert accuracy_rows.run_jobs(jobs, sources, tmp_path, 1, 0.0) == {}
    assert not list(tmp_path.iterdir())


def test_a_stack_averages_over_pixels_with_data_alone() -> None:
    values = np.ones((SIDE, SIDE, 1), np.float32)
    values[:, ::2] = 3.0
    values[4, 4] = np.nan
    scene = load_scene(ArrayScene("stripes", {"hsi": values}))
    table = spatial_stack(scene, scene)
    assert table.shape == (SIDE, SIDE, 5)
    band, mean_3 = table[..., 0], table[..., 1]
    around = [band[row, col] for row in (4, 5, 6) for col in (4, 5, 6) if (row, col) != (4, 4)]
    assert mean_3[5, 5] == pytest.approx(np.mean(around), abs=1e-5)


def two_fields(rng: np.random.Generator) -> tuple[Scene, np.ndarray]:
    """A generated scene: the left half of one kind, the right half of another, noise upon both."""
    truth = np.ones((SIDE, SIDE), np.int64)
    truth[:, SIDE // 2 :] = 2
    values = (truth[..., None] * np.array([1.0, -1.0, 0.5]) + rng.normal(0, 0.45, (SIDE, SIDE, 3))).astype(np.float32)
    names = Classes({1: "field", 2: "wood"})
    return load_scene(ArrayScene("fields", {"hsi": values}, classes=names, labels=truth.astype(np.uint16))), truth


@pytest.mark.parametrize("classify", [nearest_mean, spread_labels, ridge_with_field])
def test_own_classifiers_tell_two_fields_apart(classify: accuracy_rows.Callable) -> None:
    scene, truth = two_fields(np.random.default_rng(0))
    rows, cols = np.nonzero(truth)
    draw = Draw(Pixels(np.array([3, 12]), np.array([3, 12]), np.array([1, 2])), Pixels(rows, cols, truth[rows, cols]))
    values = scene.values["hsi"].astype(np.float32)
    (found,) = classify(Tables(values, values, present(scene)), [draw])
    assert np.mean(found == truth[rows, cols]) > 0.9


def test_smoothing_by_a_field_mends_single_pixels() -> None:
    scene, truth = two_fields(np.random.default_rng(1))
    values = scene.values["hsi"].astype(np.float32)
    values[8, 3] = values[8, 12]  # a pixel of the wood amid the field
    rows, cols = np.nonzero(truth)
    draw = Draw(Pixels(np.array([3, 12]), np.array([3, 12]), np.array([1, 2])), Pixels(rows, cols, truth[rows, cols]))
    tables = Tables(values, values, present(scene))
    by_ridge, by_mean = (
        classify(tables, [draw])[0].reshape(truth.shape) for classify in (ridge_with_field, nearest_mean)
    )
    assert (by_ridge[8, 3], by_mean[8, 3]) == (1, 2)


def test_profiles_remove_what_is_smaller_than_their_disc() -> None:
    values = np.zeros((SIDE, SIDE, 1), np.float32)
    values[5, 5] = 1.0
    scene = load_scene(ArrayScene("speck", {"hsi": values}))
    image, opened, closed, *_ = np.moveaxis(morphological_profiles(scene, scene), 2, 0)
    assert max(np.ptp(image), np.ptp(closed)) > 1.0
    assert np.ptp(opened) == pytest.approx(0.0, abs=1e-6) or np.ptp(closed) == pytest.approx(0.0, abs=1e-6)


def test_halves_share_no_pixel_and_have_their_own_statistics() -> None:
    scene, _ = two_fields(np.random.default_rng(0))
    wide = load_scene(
        ArrayScene("wide", {"hsi": np.concatenate([scene.values["hsi"], 5 + scene.values["hsi"]], axis=1)})
    )
    one, other = halves(wide)
    assert one.record.width + other.record.width == wide.record.width
    np.testing.assert_array_equal(np.concatenate([one.values["hsi"], other.values["hsi"]], axis=1), wide.values["hsi"])
    assert other.record.modalities[0].mean[0] - one.record.modalities[0].mean[0] == pytest.approx(5.0, abs=0.5)


def test_a_scene_is_cut_where_it_is_empty() -> None:
    values = np.ones((SIDE, 20, 2), np.float32)
    values[0] = 2.0
    values[:, 11] = np.nan
    one, other = halves(load_scene(ArrayScene("plots", {"hsi": values})))
    assert (one.record.width, other.record.width) == (11, 9)


def test_the_readmes_table_is_written_between_its_marks() -> None:
    text = f"before\n{accuracy_report.BEGIN}\nold\n{accuracy_report.END}\nafter\n"
    assert (
        accuracy_report.with_table(text, "new")
        == f"before\n{accuracy_report.BEGIN}\n\nnew\n{accuracy_report.END}\nafter\n"
    )
    with pytest.raises(BadInput, match=r"README\.md"):
        accuracy_report.with_table("no marks", "new")
