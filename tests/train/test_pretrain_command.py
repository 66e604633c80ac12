"""launch/pretrain.py on a real Ray head with real DeepSpeed engines."""

import json
from pathlib import Path

import pytest
import yaml
from small_runs import Pretrain, Run

from diffclip_dist.model.saved_encoder import load_encoder, read_config
from diffclip_dist.train.backend.offload import reaches_disk
from shards.archive.archive import Archive

STEPS = 50


@pytest.fixture(scope="module")
def alone(pretrain: Pretrain, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One worker under ZeRO 0: what all others are held against."""
    run = pretrain(tmp_path_factory.mktemp("alone") / "run", "--zero-stage", "0", "--steps", str(STEPS))
    assert run.status == 0, run.err
    return run


def test_a_run_leaves_what_the_readme_promises(alone: Run, generated_archive: Path) -> None:
    config = yaml.safe_load((alone.folder / "config.yaml").read_text())
    assert config["global_batch"] == 24
    assert config["model"]["window"] == 7
    assert [metrics["step"] for metrics in alone.metrics] == list(range(1, STEPS + 1))
    for metrics in alone.metrics:
        assert metrics["samples_per_s"] == pytest.approx(metrics["samples_per_s_per_worker"])
        assert 0.0 <= metrics["data_wait_fraction"] <= 1.0
        assert 0.0 < metrics["mfu"] < 1.0
    assert list((alone.folder / "tensorboard").glob("events.*"))
    assert (alone.folder / "checkpoints").is_dir()
    config_of_encoder = read_config(alone.folder / "encoder")
    assert config_of_encoder.training.generated_scenes == ("small",)
    assert config_of_encoder.training.archive_fingerprint == Archive.open(str(generated_archive)).fingerprint
    assert load_encoder(alone.folder / "encoder").config.width == 32


def test_the_loss_falls(alone: Run) -> None:
    assert sum(alone.losses[-5:]) < 0.8 * sum(alone.losses[:5])


@pytest.mark.parametrize("zero_stage", [0, 1, 2, 3])
def test_two_workers_compute_what_one_computes(pretrain: Pretrain, alone: Run, tmp_path: Path, zero_stage: int) -> None:
    # micro-batches of 5 leave a remainder, and the scene's holes fall on the workers unevenly
    run = pretrain(
        tmp_path / "run", "--zero-stage", str(zero_stage), "--workers", "2", "--steps", str(STEPS),
        settings=("micro_batch=5",),
    )  # fmt: skip
    assert run.status == 0, run.err
    assert run.losses == pytest.approx(alone.losses, rel=1e-5)
    ours, theirs = load_encoder(run.folder / "encoder"), load_encoder(alone.folder / "encoder")
    for (name, here), (_, there) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (here - there).abs().max() < 2e-4, name


def test_the_same_seed_gives_the_same_losses_and_another_seed_others(
    pretrain: Pretrain, alone: Run, tmp_path: Path
) -> None:
    again = pretrain(tmp_path / "again", "--zero-stage", "0", "--steps", str(STEPS))
    assert again.losses == alone.losses
    other = pretrain(tmp_path / "other", "--zero-stage", "0", "--steps", str(STEPS), "--seed", "1")
    assert other.losses[0] != alone.losses[0]


def test_a_run_folder_is_not_used_twice(pretrain: Pretrain, alone: Run) -> None:
    before = (alone.folder / "metrics.jsonl").read_bytes()
    run = pretrain(alone.folder, "--zero-stage", "0", "--steps", str(STEPS))
    assert run.status == 2
    assert run.err.strip() == (
        f"error: {alone.folder}: holds a run already; give --resume to go on with it, or another --run-dir"
    )
    assert (alone.folder / "metrics.jsonl").read_bytes() == before


def test_bfloat16_trains_and_exports_float32(pretrain: Pretrain, alone: Run, tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", "--steps", str(STEPS), "--workers", "2", settings=("precision=bfloat16",))
    assert run.status == 0, run.err
    assert run.losses == pytest.approx(alone.losses, rel=0.05)
    assert {str(p.dtype) for p in load_encoder(run.folder / "encoder").parameters()} == {"torch.float32"}


@pytest.mark.parametrize(
    ("arguments", "settings", "fault"),
    [
        (("--workers", "5"), (), "global_batch: expected a multiple of the workers (5), found 24"),
        ((), ("model.window=6",), "model.window: expected an odd number of pixels, found 6"),
        ((), ("model.window=13",), "model.window: expected at most 11"),
        ((), ("model.size=3",), "model.size: Unexpected keyword argument"),
        (("--global-batch", "1000000"), ("stream.shuffle_streams=1",), "global batch: expected no more samples"),
        (("--config", "absent.yaml"), (), "absent.yaml: No such file or directory"),
        (("--resume",), (), "--resume: expected a run, with its config.yaml, found none"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    pretrain: Pretrain, tmp_path: Path, arguments: tuple[str, ...], settings: tuple[str, ...], fault: str
) -> None:
    run = pretrain(tmp_path / "run", "--steps", "2", *arguments, settings=settings)
    assert run.status == 2
    assert len(run.err.strip().splitlines()) == 1
    assert fault in run.err
    assert not run.folder.exists()


@pytest.mark.skipif(reaches_disk(), reason="this machine has libaio, and test_same_losses.py keeps state on disk")
def test_offload_to_disk_is_refused_where_deepspeed_cannot_do_it(pretrain: Pretrain, tmp_path: Path) -> None:
    disk = ("offload.optimizer=disk", f"offload.folder={tmp_path / 'disk'}")
    run = pretrain(tmp_path / "run", "--steps", "2", "--zero-stage", "3", settings=disk)
    assert run.status == 2
    assert len(run.err.strip().splitlines()) == 1
    assert "expected libaio with its headers" in run.err
    assert not run.folder.exists()


def test_an_archive_that_is_not_there_is_named(pretrain: Pretrain, tmp_path: Path) -> None:
    run = pretrain(tmp_path / "run", archive=tmp_path / "nowhere")
    assert run.status == 2
    assert str(tmp_path / "nowhere") in run.err
    assert len(run.err.strip().splitlines()) == 1


def test_metrics_are_one_object_a_line(alone: Run) -> None:
    for line in (alone.folder / "metrics.jsonl").read_text().splitlines():
        assert {"step", "loss", "lr", "samples_per_s", "samples_per_s_per_worker", "data_wait_fraction", "mfu"} <= set(
            json.loads(line)
        )
