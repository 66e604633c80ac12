"""launch/pretrain.py --dry-run: what a run would be, with nothing started and nothing written."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import ray
import torch
import yaml
from small_study import Ended, command
from torch.distributed._tools.mem_tracker import MemTracker

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.log_lines import start_log
from diffclip_dist.model.mask_diffusion import draw_noise_and_masks
from diffclip_dist.model.saved_encoder import new_encoder
from diffclip_dist.train.backend.deepspeed_engine import build_model, build_optimiser
from diffclip_dist.train.dry_run import RunEstimate, describe, estimate_run
from diffclip_dist.train.memory import activation_bytes
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import resolve_config

DryRun = Callable[..., Ended]


@pytest.fixture
def dry_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DryRun:
    """Runs launch/pretrain.py --dry-run with an empty working directory, `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("a dry run started Ray"))
    return partial(command, "pretrain.py", "--dry-run")


def test_a_dry_run_says_what_the_run_would_be_and_leaves_nothing(dry_run: DryRun, tmp_path: Path) -> None:
    run = ("--workers", "4", "--steps", "160", "--global-batch", "256", "--zero-stage", "1")
    done = dry_run(*run, "--set", "preset=huge", "--set", "precision=bfloat16")
    assert done.status == 0, done.errors
    assert not list(tmp_path.iterdir())
    settings, _, figures = done.output.partition("\n\n")
    assert yaml.safe_load(settings)["model"]["depth"] == 36
    assert "synthetic (generated)" in figures
    assert re.search(r"parameters +1,0\d\d,\d{3},\d{3}, of which 1,0\d\d,\d{3},\d{3} in the exported encoder", figures)
    assert "80 steps are an epoch, so 2.00 epochs" in figures  # 128 x 160 pixels, 256 at a time
    assert re.search(r"time +about [\d.]+ (days|hours|minutes|s), at 40% \(assumed\) of [\d,]+ GFLOP/s", figures)
    for stage in ("0", "1 \\*", "2", "3"):
        assert re.search(rf"^ +{stage}( +[\d.]+ [MGT]B){{5}} *$", figures, re.MULTILINE), figures


def test_as_json_a_dry_run_prints_objects_alone_and_the_stage_that_the_run_would_take(dry_run: DryRun) -> None:
    done = dry_run("--log-format", "json", "--workers", "2", "--set", "model.width=32", "--set", "model.depth=2")
    assert done.status == 0, done.errors
    settings, figures = (json.loads(line) for line in done.output.splitlines())
    assert settings["settings"]["zero_stage"] == "auto"
    assert figures["scenes"] == [{"name": "synthetic", "generated": True}]
    assert figures["zero_stage"] == 0  # some hundred kilobytes fit into any machine
    assert figures["bytes_by_zero_stage"][0]["parameters"] == 4 * figures["parameters"]
    assert figures["seconds"] > 0.0
    start_log("plain", "stdout")


def test_the_plan_tells_what_lies_off_the_device(generated_archive: Path) -> None:
    offloaded = estimated(
        generated_archive, "zero_stage=3", "workers=2", "offload.optimizer=host", "offload.parameters=host"
    )
    plain = estimated(generated_archive, "zero_stage=3", "workers=2")
    rows = [line.split() for line in describe(offloaded).splitlines() if re.match(r" +[0-3] ", line)]
    assert [[cell for cell in row if cell == "(host)"] for row in rows] == [
        [],
        ["(host)"],
        ["(host)"] * 2,
        ["(host)"] * 3,
    ]
    assert rows[3][-4:-2] == ["0", "bytes"]  # of the state, the device holds nothing
    assert "(host)" not in describe(plain)


def test_a_dry_run_refuses_what_a_run_would(dry_run: DryRun, tmp_path: Path) -> None:
    absent = dry_run("--archive", "nowhere")
    assert (absent.status, len(absent.errors.splitlines())) == (2, 1)
    assert "nowhere" in absent.errors
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    taken = dry_run("--run-dir", "run")
    assert (taken.status, len(taken.errors.splitlines())) == (2, 1)
    assert "holds a run already" in taken.errors
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    taken = dry_run("--run-dir", "new", "--set", f"storage_path={tmp_path / 'other'}")
    assert (taken.status, len(taken.errors.splitlines())) == (2, 1)
    assert f"{tmp_path / 'other'}: expected no files" in taken.errors


def estimated(archive: Path, *settings: str) -> RunEstimate:
    return estimate_run(open_plan(resolve_config(None, {"archive": str(archive)}, ["global_batch=24", *settings])))


def test_parameters_are_those_of_the_model_that_is_trained(generated_archive: Path) -> None:
    planned = estimated(generated_archive, "model.width=32").plan
    encoder = new_encoder(planned.config.model, (ModalitySchema("hsi", 12), ModalitySchema("height", 1)), seed=0)
    of_encoder = sum(parameter.numel() for parameter in encoder.parameters())
    assert planned.encoder_parameters == of_encoder
    assert planned.parameters > planned.encoder_parameters


def test_each_stage_shards_what_it_says(generated_archive: Path) -> None:
    two, four = (estimated(generated_archive, f"workers={workers}").states for workers in (2, 4))
    for few, shared, by in zip(two, four, ((1, 1, 1), (1, 1, 2), (1, 2, 2), (2, 2, 2)), strict=True):
        held = [few.parameters / by[0], few.gradients / by[1], few.optimizer / by[2]]
        assert [shared.parameters, shared.gradients, shared.optimizer] == pytest.approx(held)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_lone_worker_holds_what_its_engine_allocates(generated_archive: Path, precision: str) -> None:
    # its engine takes stages 1 and 2 for 0, which has no master weights of its own
    planned = estimated(generated_archive, f"precision={precision}", "zero_stage=1", "model.width=32")
    config = planned.plan.config
    model = build_model(config, planned.plan.data.modalities)
    optimiser = build_optimiser(model, config.optimiser)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    moments = [each for state in optimiser.state.values() for each in (state["exp_avg"], state["exp_avg_sq"])]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    allocated = [sum(each.nbytes for each in tensors) for tensors in (model.parameters(), gradients, moments)]
    for stage in (0, 1, 2):
        state = planned.states[stage]
        assert [state.parameters, state.gradients, state.optimizer] == allocated


def test_the_estimate_of_the_time_follows_the_work(generated_archive: Path) -> None:
    def work(*settings: str) -> float:
        """Seconds at one FLOP/s; the machine's own rate is measured anew for each plan."""
        planned = estimated(generated_archive, *settings)
        return planned.seconds * planned.matrix_rate

    once = work("steps=10")
    assert work("steps=20") == pytest.approx(2 * once)
    assert work("steps=10", "global_batch=48") == pytest.approx(2 * once)
    assert work("steps=10", "model.depth=24") > 1.5 * work("steps=10", "model.depth=12")


def test_activation_checkpointing_trades_memory_for_time(generated_archive: Path) -> None:
    kept, recomputed = estimated(generated_archive), estimated(generated_archive, "activation_checkpointing=true")
    assert recomputed.activations < kept.activations / 2
    assert recomputed.seconds * recomputed.matrix_rate == pytest.approx(kept.seconds * kept.matrix_rate * 4 / 3)


def test_an_average_of_the_weights_takes_another_number_a_parameter(generated_archive: Path) -> None:
    without = estimated(generated_archive, "workers=2")
    averaged = estimated(generated_archive, "workers=2", "optimiser.ema_decay=0.9")
    for stage, shards in enumerate((1, 2, 2, 2)):
        grown = averaged.states[stage].optimizer - without.states[stage].optimizer
        assert grown == pytest.approx(4 * averaged.plan.parameters / shards, abs=8)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_what_a_real_pass_keeps(precision: str, checkpointing: bool) -> None:
    settings = [f"precision={precision}", f"activation_checkpointing={checkpointing}", "model.window=7"]
    config = resolve_config(None, {}, [*settings, "model.width=64"])
    schemas = (ModalitySchema("hsi", 20), ModalitySchema("lidar", 1))
    windows = {schema.key: torch.randn(32, 49, schema.bands) for schema in schemas}
    valid = {schema.key: torch.ones(32, 49, dtype=torch.bool) for schema in schemas}
    batch = WindowBatch(schemas, torch.arange(32), windows, valid, all_valid=True)
    drawn = draw_noise_and_masks(batch, config.model, seed=0, step=0)
    model = build_model(config, schemas)
    tracker = MemTracker()
    with tracker:
        loss = model(batch, drawn)
    kept = next(iter(tracker.get_tracker_snapshot("current").values()))
    held = sum(size for kind, size in kept.items() if str(kind).endswith(("ACT", "TEMP", "OTH")))
    del loss
    assert activation_bytes(config, schemas, 32) == pytest.approx(held, rel=0.1)
