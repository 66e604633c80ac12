"""launch/pretrain.py on a real Ray head with real DeepSpeed engines."""

import json
from pathlib import Path

import pytest
import yaml
from small_runs import STEPS, Pretrain, Refused, Run

from diffclip_dist.model.saved_encoder import load_encoder, read_config
from diffclip_dist.train.backend.offload import reaches_disk
from shards.archive.archive import Archive


def test_a_run_leaves_what_the_readme_promises(one_worker: Run, generated_archive: Path) -> None:
    config = yaml.safe_load((one_worker.folder / "config.yaml").read_text())
    assert config["global_batch"] == 24
    assert config["model"]["window"] == 7
    assert [metrics["step"] for metrics in one_worker.metrics] == list(range(1, STEPS + 1))
    for metrics in one_worker.metrics:
        assert metrics["samples_per_s"] == pytest.approx(metrics["samples_per_s_per_worker"])
        assert 0.0 <= metrics["data_wait_fraction"] <= 1.0
        assert 0.0 < metrics["mfu"] < 1.0
    assert list((one_worker.folder / "tensorboard").glob("events.*"))
    assert (one_worker.folder / "checkpoints").is_dir()
    config_of_encoder = read_config(one_worker.folder / "encoder")
    assert config_of_encoder.training.generated_scenes == ("small",)
    assert config_of_encoder.training.archive_fingerprint == Archive.open(str(generated_archive)).fingerprint
    assert load_encoder(one_worker.folder / "encoder").config.width == 32
    card = (one_worker.folder / "encoder" / "README.md").read_text()
    assert f"Pretrained for {STEPS} steps" in card
    assert "small (generated, no real place)" in card


def test_the_loss_falls(one_worker: Run) -> None:
    assert sum(one_worker.losses[-5:]) < 0.8 * sum(one_worker.losses[:5])


@pytest.mark.slow
def test_two_workers_that_share_every_parameter_compute_what_one_computes(sharded: Run, one_worker: Run) -> None:
    """All stages of ZeRO are held to each other in test_sharded_state.py and test_export.py."""
    same_losses_and_weights(sharded, one_worker)


def test_two_workers_with_the_default_settings_compute_what_one_computes(undisturbed: Run, one_worker: Run) -> None:
    same_losses_and_weights(undisturbed, one_worker)
    assert "zero_stage: auto is 0 here" in undisturbed.out
    assert yaml.safe_load((undisturbed.folder / "config.yaml").read_text())["zero_stage"] == 0


def same_losses_and_weights(run: Run, expected: Run) -> None:
    """Equal but for the order in which sums over workers are added up."""
    assert run.losses == pytest.approx(expected.losses, rel=1e-5)
    ours, theirs = load_encoder(run.folder / "encoder"), load_encoder(expected.folder / "encoder")
    for (name, here), (_, there) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (here - there).abs().max() < 2e-4, name


def test_a_run_folder_is_not_used_twice(refused: Refused, one_worker: Run) -> None:
    before = (one_worker.folder / "metrics.jsonl").read_bytes()
    line = refused(one_worker.folder, "--zero-stage", "0", "--steps", str(STEPS))
    assert line == (
        f"error: {one_worker.folder}: holds a run already; give --resume to go on with it, or another --run-dir"
    )
    assert (one_worker.folder / "metrics.jsonl").read_bytes() == before


@pytest.mark.slow
def test_bfloat16_trains_and_exports_float32(pretrain: Pretrain, one_worker: Run, tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", "--steps", str(STEPS), "--workers", "2", settings=("precision=bfloat16",))
    assert run.status == 0, run.err
    assert run.losses == pytest.approx(one_worker.losses, rel=0.05)
    assert {str(p.dtype) for p in load_encoder(run.folder / "encoder").parameters()} == {"torch.float32"}


@pytest.mark.parametrize(
    ("arguments", "settings", "fault"),
    [
        (("--workers", "5"), (), "global_batch: expected a multiple of the workers (5), found 24"),
        ((), ("model.window=6",), "model.window: expected an odd number of pixels, found 6"),
        ((), ("model.window=13",), "model.window: expected at most 11"),
        ((), ("model.size=3",), "--set model.size: no such setting"),
        (("--global-batch", "1000000"), ("stream.shuffle_streams=1",), "global batch: expected no more samples"),
        (("--config", "absent.yaml"), (), "absent.yaml: No such file or directory"),
        (("--resume",), (), "--resume: expected a run, with its config.yaml, found none"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    refused: Refused, tmp_path: Path, arguments: tuple[str, ...], settings: tuple[str, ...], fault: str
) -> None:
    assert fault in refused(tmp_path / "run", "--steps", "2", *arguments, settings=settings)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(reaches_disk(), reason="this machine has libaio, and test_same_losses.py keeps state on disk")
def test_offload_to_disk_is_refused_where_deepspeed_cannot_do_it(pretrain: Pretrain, tmp_path: Path) -> None:
    disk = ("offload.optimizer=disk", f"offload.folder={tmp_path / 'disk'}")
    run = pretrain(tmp_path / "run", "--steps", "2", "--zero-stage", "3", settings=disk)
    assert run.status == 2
    (line,) = run.err.splitlines()
    assert "expected libaio with its headers" in line
    assert not run.folder.exists()


def test_an_archive_that_is_not_there_is_named(refused: Refused, tmp_path: Path) -> None:
    assert str(tmp_path / "nowhere") in refused(tmp_path / "run", archive=tmp_path / "nowhere")


def test_metrics_are_one_object_a_line(one_worker: Run) -> None:
    for line in (one_worker.folder / "metrics.jsonl").read_text().splitlines():
        assert {"step", "loss", "lr", "samples_per_s", "samples_per_s_per_worker", "data_wait_fraction", "mfu"} <= set(
            json.loads(line)
        )
