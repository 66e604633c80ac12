"""Compiled training: the same losses, and one graph without a break in which no number goes through Python."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounter

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion, sample_keys
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.single_process import pretrain_single_process

SCHEMAS = (ModalitySchema("hsi", 6), ModalitySchema("height", 1))
MODEL = ModelConfig(window=3, width=16, depth=1, heads=2)


def batch_of(windows: int, holes: bool) -> WindowBatch:
    made = torch.Generator().manual_seed(windows)
    values = {schema.key: torch.randn(windows, 9, schema.bands, generator=made) for schema in SCHEMAS}
    valid = {schema.key: torch.rand(windows, 9, generator=made) > 0.3 * holes for schema in SCHEMAS}
    return WindowBatch(SCHEMAS, torch.arange(windows), values, valid, all_valid=not holes)


def gradients(model: MaskDiffusion, batch: WindowBatch) -> list[Tensor]:
    model.zero_grad()
    sums_LM = model(batch, model.draw(batch, sample_keys(batch, 0, 0)))
    sums_LM.sum().backward()
    return [sums_LM.detach(), *(parameter.grad for parameter in model.parameters() if parameter.grad is not None)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("autocasts", [False, True])
def test_the_whole_pass_is_one_graph_with_the_same_gradients(autocasts: bool) -> None:
    torch.manual_seed(0)
    model = MaskDiffusion(MODEL, SCHEMAS)
    model.autocasts = autocasts
    batches = [batch_of(windows, holes) for windows in (8, 5) for holes in (False, True)]
    expected = [gradients(model, batch) for batch in batches]
    model.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    for batch, plain in zip(batches, expected, strict=True):
        for found, wanted in zip(gradients(model, batch), plain, strict=True):
            torch.testing.assert_close(
                found, wanted, rtol=2e-2 if autocasts else 1e-5, atol=1e-2 if autocasts else 1e-6
            )


@pytest.mark.parametrize("holes", [False, True])
def test_draws_and_counts_are_one_graph_that_serves_every_step(holes: bool) -> None:
    model, batch = MaskDiffusion(MODEL, SCHEMAS), batch_of(8, holes)
    counter = CompileCounter()
    draw = torch.compile(model.draw, backend=counter, fullgraph=True, dynamic=False)
    count = torch.compile(model.count, backend=counter, fullgraph=True, dynamic=False)
    for step in range(3):
        keys_B = sample_keys(batch, 7, step)
        drawn, expected = draw(batch, keys_B), model.draw(batch, keys_B)
        assert torch.equal(drawn.t_B, expected.t_B)
        for schema in SCHEMAS:
            assert torch.equal(drawn.noise[schema.key], expected.noise[schema.key])
            assert torch.equal(drawn.masks[schema.key].slots_BK, expected.masks[schema.key].slots_BK)
        assert torch.equal(count(batch, keys_B), model.count(batch, keys_B))
    assert counter.frame_count == 2


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_compiled_run_has_the_losses_of_a_plain_one(generated_archive: Path, tmp_path: Path) -> None:
    curves = []
    for compiles in ("false", "true", "graphs"):  # the last replays graphs on GPUs alone
        given = {
            "archive": str(generated_archive), "run_dir": str(tmp_path / compiles), "global_batch": 24, "steps": 30,
        }  # fmt: skip
        sizes = ["model.window=3", "model.width=16", "model.depth=1", "model.heads=2"]
        config = resolve_config(None, given, [*sizes, "reconstruct_windows=0", f"compile={compiles}"])
        pretrain_single_process(config)
        lines = (tmp_path / compiles / "metrics.jsonl").read_text().splitlines()
        curves.append(torch.tensor([json.loads(line)["loss"] for line in lines]))
    for curve in curves[1:]:
        torch.testing.assert_close(curve, curves[0], rtol=1e-5, atol=0.0)
