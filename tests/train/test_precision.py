"""Precision of a run: bfloat16 over float32 weights, and the choice that is left to the machine."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from small_runs import SMALL_MODEL

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.transformer import written_out_attention
from diffclip_dist.train import precision
from diffclip_dist.train.backend.deepspeed_engine import build_model
from diffclip_dist.train.cluster.driver import with_recorded_choices
from diffclip_dist.train.precision import faster_on_cpu, with_chosen_precision
from diffclip_dist.train.pretrain_config import PretrainConfig, resolve_config
from diffclip_dist.train.run_files import CONFIG_FILE
from diffclip_dist.train.single_process import pretrain_single_process


def run_config(archive: Path, folder: Path, *settings: str) -> PretrainConfig:
    given = {"archive": str(archive), "run_dir": str(folder), "global_batch": 24, "steps": 40}
    return resolve_config(None, given, [*SMALL_MODEL, *settings])


def losses(config: PretrainConfig) -> torch.Tensor:
    pretrain_single_process(config)
    lines = (Path(config.run_dir) / "metrics.jsonl").read_text().splitlines()
    return torch.tensor([json.loads(line)["loss"] for line in lines], dtype=torch.float64)


def test_bfloat16_learns_as_float32_does_in_micro_batches_too(generated_archive: Path, tmp_path: Path) -> None:
    exact = losses(run_config(generated_archive, tmp_path / "float32"))
    low = losses(run_config(generated_archive, tmp_path / "bfloat16", "precision=bfloat16"))
    split = losses(run_config(generated_archive, tmp_path / "split", "precision=bfloat16", "micro_batch=5"))
    assert not torch.equal(low, exact), "nothing was computed in bfloat16"
    assert exact[-5:].mean() < 0.8 * exact[:5].mean()
    torch.testing.assert_close(low, exact, rtol=0.02, atol=0.0)
    torch.testing.assert_close(split, low, rtol=5e-3, atol=0.0)


@pytest.mark.parametrize(("stage", "autocasts"), [(0, True), (1, True), (2, True), (3, False)])
def test_weights_stay_float32_where_no_stage_gathers_them(stage: int, autocasts: bool) -> None:
    config = resolve_config(None, {"zero_stage": stage}, ["precision=bfloat16", "model.width=32"])
    model = build_model(config, [ModalitySchema("hsi", 8)])
    assert model.autocasts is autocasts
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_attention_written_out_is_the_fused_one() -> None:
    query, key, value = torch.randn(3, 2, 4, 26, 16, generator=torch.Generator().manual_seed(0)).unbind()
    keep = torch.rand(2, 1, 1, 26, generator=torch.Generator().manual_seed(1)) < 0.7
    for mask in (None, keep):
        fused = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        torch.testing.assert_close(written_out_attention(query, key, value, mask), fused, rtol=1e-5, atol=1e-6)


def test_the_machine_chooses_once_and_a_resumed_run_keeps_it(
    generated_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = run_config(generated_archive, tmp_path, "precision=auto")
    assert with_chosen_precision(config, on_gpus=True).precision == "bfloat16"
    assert with_recorded_choices(config) == config
    monkeypatch.setattr(precision, "faster_on_cpu", lambda _: "float32")
    chosen = with_chosen_precision(config, on_gpus=False)
    assert chosen.precision == "float32"
    (tmp_path / CONFIG_FILE).write_text(chosen.to_yaml())
    monkeypatch.setattr(precision, "faster_on_cpu", lambda _: "bfloat16")
    assert with_recorded_choices(config) == chosen
    assert with_chosen_precision(chosen, on_gpus=False) == chosen


@pytest.mark.parametrize(("slow", "expected"), [(True, "float32"), (False, "bfloat16")])
def test_the_faster_precision_on_a_cpu_is_found_by_its_step(
    slow: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose step takes longer in one precision, by a clock that other processes do not disturb."""
    forward, now = MaskDiffusion.forward, [0.0]

    def slowed(self: MaskDiffusion, *given: object) -> torch.Tensor:
        now[0] += 0.05 if self.autocasts is slow else 0.01
        return forward(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(MaskDiffusion, "forward", slowed)
    monkeypatch.setattr(precision, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    assert faster_on_cpu(ModelConfig(window=3, width=32, heads=2, depth=1), seconds=0.5) == expected
