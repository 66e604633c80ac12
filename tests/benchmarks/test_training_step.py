"""benchmarks/training_step.py: its peer, its rows, its comparison; and the page that is written from its figures."""

import argparse
import json
from pathlib import Path

import performance_page
import pytest
import step_tries
import torch
import training_step_rows
from published_step import PublishedModel

from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.transformer import Transformer
from diffclip_dist.train.backend.deepspeed_engine import join_process_group
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.single_process import world_of_one
from shards.errors import BadInput

CPU = torch.device("cpu")
EFFORT = training_step_rows.Effort(0.0, 1, 0, {}, compiled=False)


def test_the_peer_has_the_published_models_parameters() -> None:
    peer = PublishedModel({schema.key: schema.bands for schema in training_step_rows.SCHEMAS})
    ours = MaskDiffusion(training_step_rows.model_of("published"), training_step_rows.SCHEMAS)
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (peer, ours)]
    assert sizes[0] == sizes[1]


def test_rows_hold_rates_parts_and_a_trace(tmp_path: Path) -> None:
    setup = training_step_rows.Setup("default", "float32", 4, compiled=False)
    with world_of_one(CPU):
        join_process_group(CPU)
        row = training_step_rows.measure_ours(CPU, EFFORT, setup, 1e12, tmp_path / "trace.json")
        curve = training_step_rows.losses(CPU, training_step_rows.run_config(setup), 3)
    peer = training_step_rows.measure_peer(CPU, EFFORT, "bfloat16", 2)
    assert row is not None
    assert peer is not None
    assert peer["windows_per_s"] > 0  # type: ignore[operator]
    parts = [row[f"{part}_ms"] for part in ("counts", "draw", "forward", "backward", "optimizer")]
    assert all(isinstance(taken, float) and taken > 0.0 for taken in parts)
    assert len(set(curve)) == 3
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


def test_drift_is_told_beside_what_another_seed_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def losses(_: torch.device, config: PretrainConfig, steps: int) -> list[float]:
        return [(2.0 if config.compile else 1.0) * (1.0 + config.seed) * (step + 1.0) for step in range(steps)]

    monkeypatch.setattr(training_step_rows, "losses", losses)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "drift.json"
    assert training_step_rows.measure_drift(argparse.Namespace(drift=20, json=out)) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["steps"] for row in rows] == list(range(2, 21, 2))
    assert rows[-1] == {"steps": 20, "plain_loss": 19.5, "compiled_gap_ratio": 1.0, "other_seed_gap_ratio": 1.0}
    assert "of 20 steps on cpu" in capsys.readouterr().out
    gaps = training_step_rows.compiled_gaps(CPU, 20)
    assert gaps == {"compiled_loss_gap_after_20_steps_ratio": 1.0, "other_seed_loss_gap_after_20_steps_ratio": 1.0}
    with pytest.raises(BadInput, match="--drift 0: expected 1 step or more"):
        training_step_rows.measure_drift(argparse.Namespace(drift=0, json=None))


def test_a_comparison_needs_a_file_of_this_benchmark(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"rows": [{"scenes": "a"}]}')
    for name in ("other.json", "absent.json"):
        with pytest.raises(BadInput, match=f"--compare .*{name}: expected the --json of an earlier training_step.py"):
            training_step_rows.read_rates(tmp_path / name)


def test_a_try_is_measured_beside_what_it_would_replace() -> None:
    spent: list[str] = []
    one = step_tries.Try("t", "here", "kept", lambda: (lambda: spent.append("before"), lambda: spent.append("after")))
    row = step_tries.row_of(one, CPU, seconds=0.0)
    assert spent == ["before", "after"] * (len(spent) // 2)
    assert row["times_as_fast_ratio"] == row["before_ms"] / row["after_ms"]  # type: ignore[operator]
    assert (row["try"], row["where"], row["outcome"]) == ("t", "here", "kept")


def test_what_was_tried_computes_the_same() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(6, 2, 5, 8) for _ in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(step_tries.packed_attention(query, key, value, None), expected)
    double = [part.double().requires_grad_() for part in (query[:2], key[:2], value[:2])]
    assert torch.autograd.gradcheck(lambda *parts: step_tries.blocked_attention(*parts, None), double)
    torch.testing.assert_close(step_tries.blocked_attention(query, key, value, None), expected)
    decoders = [Transformer(2, 16, 2, 2.0) for _ in range(2)]
    tokens_MBSD = torch.randn(2, 3, 5, 16)
    apart = torch.stack([one(tokens) for one, tokens in zip(decoders, tokens_MBSD, strict=True)])
    torch.testing.assert_close(step_tries.as_one(decoders, tokens_MBSD), apart)


def test_a_section_holds_machine_command_and_rows() -> None:
    report = {
        "machine": {"processor": "P", "gpus": "none", "torch": "9.9"},
        "config": {"command": "python b.py", "seed": 3},
        "rows": [
            {"model": "m", "windows_per_s": 1234.5},
            {"model": "n", "compiled": True},
            {"measurement": "archive size", "tiles": 7, "open_ms": 2.0, "lowest_open_ms": 1.0, "highest_open_ms": 3.0},
        ],
    }
    section = "\n".join(performance_page.section("A title", report))
    for expected in (
        "## A title",
        "    python b.py",
        "torch 9.9",
        "seed 3",
        "| m | 1,234 | - |",
        "| n | - | yes |",
        "| measurement | tiles | open ms |\n| --- | --- | --- |\n| archive size | 7 | 2 (1 to 3) |",
    ):
        assert expected in section


def test_the_page_is_what_its_figures_give() -> None:
    assert performance_page.PAGE.read_text() == performance_page.page()
