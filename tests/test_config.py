"""How a run's settings come together from presets, a file, options and ``key=value`` settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.presets import PRESETS, PUBLISHED
from diffclip_dist.train.checkpoint.stored_checkpoint import (
    RECORD_FILE,
    CheckpointRecord,
    RunState,
    newest_checkpoint,
    write_record,
)
from diffclip_dist.train.cluster.driver import check_run_dir
from diffclip_dist.train.pretrain_config import read_run_config, resolve_config, same_run
from shards.archive.store import open_store
from shards.errors import BadInput

HOUSTON = (ModalitySchema("hsi", 144), ModalitySchema("lidar", 1))


def test_the_published_preset_is_the_papers_model() -> None:
    model = resolve_config(None, {}, ["preset=published"]).model
    assert (model.window, model.mask_ratio, model.visible_weight, model.masked_weight) == (11, 0.7, 1.0, 0.1)
    assert (model.width, model.depth, model.heads, model.decoder_depth, model.width_in_decoder) == (128, 4, 8, 3, 128)
    assert (model.stem, model.fusion, model.modality_dropout) == ("bands", "separate", 0.0)
    assert (model.diffusion.target, model.diffusion.schedule, model.diffusion.weighting) == ("x0", "linear", "constant")


@pytest.mark.parametrize(
    ("preset", "least", "most"),
    [("published", 1.4e6, 1.7e6), ("base", 84e6, 92e6), ("large", 290e6, 320e6), ("huge", 1e9, 1.1e9)],
)
def test_a_preset_has_the_parameters_it_is_named_for(preset: str, least: float, most: float) -> None:
    config = resolve_config(None, {}, [f"preset={preset}"]).model
    with torch.device("meta"):
        model = MaskDiffusion(config, HOUSTON)
    assert least < sum(parameter.numel() for parameter in model.parameters()) < most


def test_settings_of_the_model_go_over_the_preset_wherever_they_stand() -> None:
    config = resolve_config(None, {}, ["model.depth=7", "preset=base", "model.window=5"])
    assert config.model == ModelConfig(**{**PRESETS["base"], "depth": 7, "window": 5})


def test_a_file_may_name_a_preset_and_a_setting_another(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"preset": "base", "model": {"window": 7, "depth": 3}, "steps": 5}))
    from_file = resolve_config(file, {}, [])
    assert from_file.model == ModelConfig(**{**PRESETS["base"], "depth": 3, "window": 7})
    other = resolve_config(file, {}, ["preset=large"])
    assert other.model == ModelConfig(**PRESETS["large"], window=7)
    assert other.steps == 5


def test_a_preset_keeps_what_a_file_leaves_of_its_sections(tmp_path: Path) -> None:
    assert resolve_config(None, {}, []).model.diffusion.last_drawn < PUBLISHED.diffusion.last_drawn == 999
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"preset": "published", "model": {"diffusion": {"target": "eps"}}}))
    expected = replace(PUBLISHED.diffusion, target="eps")
    assert resolve_config(file, {}, []).model == replace(PUBLISHED, diffusion=expected)
    assert resolve_config(None, {}, ["model.diffusion.target=eps", "preset=published"]).model.diffusion == expected
    assert resolve_config(None, {}, ["preset=published"]).model == PUBLISHED


def test_a_resolved_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = resolve_config(None, {"steps": 3}, ["preset=huge", "model.window=7"])
    file = tmp_path / "config.yaml"
    file.write_text(config.to_yaml())
    assert resolve_config(file, {}, []) == config


@pytest.mark.parametrize(
    ("content", "settings", "fault"),
    [
        ("steps: 1", ["preset=enormous"], "--set: preset: expected one of published, contrast, base, large, huge"),
        ("preset: [1]", [], "preset: expected one of published"),
        ("preset: base\nmodel: 3", [], "model: expected a mapping"),
        ("steps: 1", ["preset=base", "model.decoder_width=100"], "model.decoder_width: expected a multiple of 4"),
    ],
)
def test_a_preset_that_does_not_fit_is_named(tmp_path: Path, content: str, settings: list[str], fault: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(content)
    with pytest.raises(BadInput, match=fault.replace("[", r"\[")):
        resolve_config(file, {}, settings)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (["optimiser.ema_decay=1"], "optimiser.ema_decay: expected 0 or more and below 1, found 1"),
        (["zero_stage=0", "offload.optimizer=host"], "offload.optimizer=host: expected zero_stage 1, 2 or 3, found 0"),
        (["zero_stage=2", "offload.parameters=host"], "offload.parameters=host: expected zero_stage 3, found 2"),
        (
            ["zero_stage=2", "offload.optimizer=disk", "offload.folder=/tmp"],
            "offload.optimizer=disk: expected zero_stage 3, found 2",
        ),
        (["zero_stage=3", "compile=true"], "compile: expected zero_stage 0, 1 or 2, found 3"),
        (["zero_stage=3", "compile=graphs"], "compile: expected zero_stage 0, 1 or 2, found 3"),
        (["compile=graphs", "micro_batch=32"], "compile=graphs: expected a micro_batch of at least 128, .* found 32"),
        (["zero_stage=3", "offload.optimizer=disk"], "offload.folder: expected a folder"),
        (["zero_stage=3", "offload.optimizer=tape"], "offload.optimizer: Input should be 'none', 'host' or 'disk'"),
    ],
)
def test_a_setting_that_its_stage_does_not_allow_is_named(settings: list[str], fault: str) -> None:
    with pytest.raises(BadInput, match=fault):
        resolve_config(None, {}, settings)


def test_a_run_may_go_on_elsewhere_but_not_with_another_average() -> None:
    begun = resolve_config(None, {}, ["zero_stage=3"])
    moved = resolve_config(None, {}, ["zero_stage=1", "offload.optimizer=host", "activation_checkpointing=true"])
    assert same_run(begun, moved) == ()
    assert same_run(begun, resolve_config(None, {}, ["optimiser.ema_decay=0.9"])) == ("optimiser.ema_decay",)


@pytest.mark.parametrize(
    ("old", "new"),
    [("stream.lanes", "stream.shuffle_streams"), ("stream.pool_tiles", "stream.shuffle_buffer")],
)
def test_a_former_name_of_a_setting_is_refused_with_the_present_one(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(BadInput, match=rf"^--set: {old}: .* {new}$"):
        resolve_config(None, {}, [f"{old}=4"])
    file = tmp_path / "run.yaml"
    section, name = old.split(".")
    file.write_text(yaml.safe_dump({section: {name: 4}}))
    with pytest.raises(BadInput, match=rf"^{file}: {old}: .* {new}$"):
        resolve_config(file, {}, [])


def test_the_configuration_of_a_run_made_under_former_names_is_read(tmp_path: Path) -> None:
    config = resolve_config(None, {}, ["stream.shuffle_streams=4", "stream.shuffle_buffer=2"])
    plain = yaml.safe_load(config.to_yaml())
    plain["stream"]["lanes"] = plain["stream"].pop("shuffle_streams")
    plain["stream"]["pool_tiles"] = plain["stream"].pop("shuffle_buffer")
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(plain))
    assert read_run_config(file) == config


def test_a_run_that_began_in_another_order_of_samples_is_not_resumed(tmp_path: Path) -> None:
    config = resolve_config(None, {"run_dir": str(tmp_path)}, [])
    plain = yaml.safe_load(config.to_yaml())
    assert plain["stream"].pop("order_version") == 2
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain))
    with pytest.raises(BadInput, match=r"config.yaml: --resume: expected order 2 of samples, found 1: go on with"):
        check_run_dir(config, resume=True)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    check_run_dir(config, resume=True)


def test_a_checkpoint_made_under_former_names_is_read(tmp_path: Path) -> None:
    config = resolve_config(None, {}, ["stream.shuffle_streams=4", "stream.shuffle_buffer=2"])
    store = open_store(tmp_path)
    write_record(
        store, "attempt-0001/step-00000003-ab", CheckpointRecord(RunState(3, "f" * 64, config, 1, 0.5, {}), ())
    )
    record = tmp_path / "attempt-0001" / "step-00000003-ab" / RECORD_FILE
    written = record.read_text()
    former = written.replace('"shuffle_streams"', '"lanes"').replace('"shuffle_buffer"', '"pool_tiles"')
    assert former != written
    record.write_text(former)
    newest = newest_checkpoint(store)
    assert newest is not None
    assert newest.state.config == config
