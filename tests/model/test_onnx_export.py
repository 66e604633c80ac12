"""The encoder as an ONNX graph against PyTorch, as onnxruntime runs it in a program of its own."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from diffclip_dist.cli.main import script_main
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model import onnx_export
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import EncoderConfig, Training, new_encoder, save_encoder
from shards.archive.archive import Archive
from shards.errors import FailedRun

SCHEMAS = (ModalitySchema("hsi", 4, (450.0, 550.0, 650.0, 850.0)), ModalitySchema("lidar", 1))
SMALL = {"window": 3, "width": 16, "depth": 2, "heads": 2, "decoder_depth": 1}


def saved(folder: Path, schemas: Sequence[ModalitySchema] = SCHEMAS, **settings: object) -> MultimodalEncoder:
    """A small encoder of random weights in a folder."""
    encoder = new_encoder(ModelConfig(**SMALL, **settings), schemas, seed=1)  # type: ignore[arg-type]
    training = Training(1, 1, "print", ("a",), ())
    save_encoder(folder, encoder.state_dict(), EncoderConfig(1, encoder.config, tuple(schemas), training))
    return encoder


def export(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Runs the command in this process."""
    monkeypatch.setattr("sys.argv", ["export.py", *map(str, arguments)])
    return script_main("export")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"fusion": "joint"}, {"stem": "wavelength"}], ids=str)
def test_the_graph_gives_the_features_of_pytorch(
    settings: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder = saved(tmp_path / "encoder", **settings)
    assert export(monkeypatch, tmp_path / "encoder", "--out", tmp_path / "encoder.onnx") == 0
    assert "difference" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"encoder", "encoder.onnx"}
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    kept = session.get_modelmeta().custom_metadata_map
    assert [one["name"] for one in json.loads(kept["modalities"])] == ["hsi", "lidar"]
    random = np.random.default_rng(5)
    holes = random.random((5, 9)) > 0.5
    masks = {"dense": np.ones((5, 9), bool), "holes": holes, "one modality": np.zeros((5, 9), bool)}
    for kind, lidar_valid in masks.items():
        valid = {"hsi": holes if kind == "holes" else masks["dense"], "lidar": lidar_valid}
        windows = {
            "hsi": random.normal(size=(5, 9, 4)).astype(np.float32) * valid["hsi"][..., None],
            "lidar": random.normal(size=(5, 9, 1)).astype(np.float32) * valid["lidar"][..., None],
        }
        fed = windows | {f"{name}.valid": mask for name, mask in valid.items()}
        class_tokens, tokens = session.run(["class_tokens", "tokens"], fed)
        with torch.no_grad():
            expected = encoder(
                {name: torch.from_numpy(values) for name, values in windows.items()},
                {name: torch.from_numpy(mask) for name, mask in valid.items()},
            )
        np.testing.assert_allclose(class_tokens, expected.class_BMD.numpy(), atol=1e-5)
        np.testing.assert_allclose(tokens, expected.tokens_BMTD.numpy(), atol=1e-5)
        assert not tokens[:, 1][~lidar_valid].any()


@pytest.mark.slow
def test_an_encoder_of_two_sensors_wants_a_scene(
    generated_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = Archive.open(generated_archive).manifest.scenes
    own = [ModalitySchema.of(modality) for modality in record.modalities]
    saved(tmp_path / "encoder", [*own, ModalitySchema(own[0].name, 3)])
    arguments = (tmp_path / "encoder", "--out", tmp_path / "encoder.onnx")
    assert export(monkeypatch, *arguments) == 2
    assert f"{own[0].name}: known with 2 sets of bands" in capsys.readouterr().err
    assert export(monkeypatch, *arguments, "--archive", generated_archive, "--scene", "small") == 0
    session = onnxruntime.InferenceSession(tmp_path / "encoder.onnx")
    shapes = {one.name: one.shape[1:] for one in session.get_inputs()}
    assert {name: shapes[name] for name in (schema.name for schema in own)} == {
        schema.name: [9, schema.bands] for schema in own
    }


def test_what_cannot_be_written_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path / "encoder")
    taken = tmp_path / "taken.onnx"
    taken.write_text("mine")
    cases = {
        ("--out", taken): "exists already",
        ("--out", tmp_path / "no" / "encoder.onnx"): "its folder does not exist",
        ("--out", tmp_path / "new.onnx", "--scene", "a"): "expected both or neither",
    }
    for arguments, said in cases.items():
        assert export(monkeypatch, tmp_path / "encoder", *arguments) == 2
        told = capsys.readouterr().err
        assert said in told
        assert told.count("\n") == 1
    assert taken.read_text() == "mine"


@pytest.mark.slow
def test_a_graph_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = saved(tmp_path / "encoder")
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(FailedRun, match="features differ from PyTorch's"):
        onnx_export.export_onnx(encoder, tmp_path / "encoder.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder"]
