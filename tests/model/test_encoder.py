"""Features of clean windows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from diffclip_dist.data.batches import WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import EncoderConfig, Training, load_encoder, new_encoder, save_encoder
from diffclip_dist.model.transformer import attention_without_gradient
from shards.errors import BadInput

Windows = dict[str, torch.Tensor]


@pytest.fixture(params=[("separate", "bands"), ("joint", "bands"), ("joint", "wavelength")], ids="-".join)
def encoder(request: pytest.FixtureRequest, config: ModelConfig, batch: WindowBatch) -> MultimodalEncoder:
    fusion, stem = request.param
    return new_encoder(replace(config, fusion=fusion, stem=stem), batch.schemas, seed=4)


@pytest.fixture
def windows(batch: WindowBatch) -> tuple[Windows, Windows]:
    names = {schema.name: schema.key for schema in batch.schemas}
    return (
        {name: batch.windows[key] for name, key in names.items()},
        {name: batch.valid[key] for name, key in names.items()},
    )


def test_features_are_deterministic_and_of_their_shapes(
    encoder: MultimodalEncoder, windows: tuple[Windows, Windows]
) -> None:
    first, second = encoder(*windows), encoder(*windows)
    assert first.class_BMD.shape == (6, 2, 16)
    assert first.tokens_BMTD.shape == (6, 2, 25, 16)
    assert torch.equal(first.class_BMD, second.class_BMD)
    assert torch.equal(first.tokens_BMTD, second.tokens_BMTD)


def test_wanted_tokens_have_the_features_that_they_have_among_all(
    encoder: MultimodalEncoder, windows: tuple[Windows, Windows]
) -> None:
    values, valid = windows
    valid["lidar"][1] = False
    valid["lidar"][2, :9] = False
    wanted_T = torch.tensor([3, 12, 24])
    expected = encoder(values, valid)  # with a graph, by torch's fused attention
    with torch.no_grad():
        found = encoder(values, valid, wanted_T)
    torch.testing.assert_close(found.class_BMD, expected.class_BMD)
    torch.testing.assert_close(found.tokens_BMTD, expected.tokens_BMTD[:, :, wanted_T])
    assert torch.equal(found.valid_BMN, expected.valid_BMN)


@pytest.mark.parametrize("size", [1.0, 40.0])
def test_attention_without_gradient_is_the_fused_one(size: float) -> None:
    query, key, value = (torch.randn(2, 4, 26, 16, generator=torch.Generator().manual_seed(n)) for n in range(3))
    keep = torch.rand(2, 1, 1, 26, generator=torch.Generator().manual_seed(3)) < 0.5
    keep[..., 0] = True
    found = attention_without_gradient(size * query, size * key, value, keep)
    expected = scaled_dot_product_attention(size * query, size * key, value, keep)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_a_window_has_the_same_features_alone(encoder: MultimodalEncoder, windows: tuple[Windows, Windows]) -> None:
    alone = encoder(*({name: values[2:3] for name, values in part.items()} for part in windows))
    torch.testing.assert_close(alone.tokens_BMTD, encoder(*windows).tokens_BMTD[2:3])


def test_missing_pixels_do_not_reach_the_features(encoder: MultimodalEncoder, windows: tuple[Windows, Windows]) -> None:
    values, valid = windows
    spoiled = values["lidar"].clone()
    spoiled[~valid["lidar"]] = 1e6
    clean, other = encoder(values, valid), encoder({**values, "lidar": spoiled}, valid)
    assert torch.equal(clean.class_BMD, other.class_BMD)
    assert torch.equal(clean.tokens_BMTD, other.tokens_BMTD)


def test_an_absent_modality_is_a_missing_one(encoder: MultimodalEncoder, windows: tuple[Windows, Windows]) -> None:
    values, valid = windows
    absent = encoder({"hsi": values["hsi"]}, {"hsi": valid["hsi"]})
    missing = encoder(values, {**valid, "lidar": torch.zeros_like(valid["lidar"])})
    assert torch.equal(absent.class_BMD, missing.class_BMD)
    assert bool(torch.isfinite(absent.tokens_BMTD).all())


def test_an_encoder_comes_back_from_disk_as_it_was(
    encoder: MultimodalEncoder, windows: tuple[Windows, Windows], tmp_path: Path
) -> None:
    training = Training(3, 4, "print", ("a",), ())
    save_encoder(tmp_path, encoder.state_dict(), EncoderConfig(1, encoder.config, encoder.modalities, training))
    loaded = load_encoder(tmp_path)
    assert loaded.config == encoder.config
    assert loaded.modalities == encoder.modalities
    assert torch.equal(loaded(*windows).tokens_BMTD, encoder(*windows).tokens_BMTD)


@pytest.mark.parametrize("damage", ["no config", "no weights", "other width", "newer", "not json", "truncated"])
def test_a_damaged_encoder_is_refused_by_name(encoder: MultimodalEncoder, tmp_path: Path, damage: str) -> None:
    training = Training(3, 4, "print", ("a",), ())
    save_encoder(tmp_path, encoder.state_dict(), EncoderConfig(1, encoder.config, encoder.modalities, training))
    text = (tmp_path / "config.json").read_text()
    if damage == "no config":
        (tmp_path / "config.json").unlink()
    elif damage == "no weights":
        (tmp_path / "model.safetensors").unlink()
    elif damage == "other width":
        (tmp_path / "config.json").write_text(text.replace('"width": 16', '"width": 32'))
    elif damage == "newer":
        (tmp_path / "config.json").write_text(text.replace('"format_version": 1', '"format_version": 2'))
    elif damage == "not json":
        (tmp_path / "config.json").write_text(text[:-10])
    else:
        whole = (tmp_path / "model.safetensors").read_bytes()
        (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(BadInput, match=str(tmp_path)):
        load_encoder(tmp_path)


def test_weights_other_than_those_saved_are_refused(encoder: MultimodalEncoder, tmp_path: Path) -> None:
    training = Training(3, 4, "print", ("a",), ())
    save_encoder(tmp_path, encoder.state_dict(), EncoderConfig(1, encoder.config, encoder.modalities, training))
    weights = tmp_path / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    with pytest.raises(BadInput, match=r"model\.safetensors: its hash is not the one in config\.json"):
        load_encoder(tmp_path)
    # an encoder of an earlier version holds no hash
    config = json.loads((tmp_path / "config.json").read_text())
    del config["weights_sha256"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_encoder(tmp_path)


@pytest.mark.parametrize("claim", [{"width": 4 * 10**8, "heads": 4}, {"depth": 10**12}, {"window": 10**6 + 1}], ids=str)
def test_sizes_that_the_weights_do_not_have_take_no_memory(
    encoder: MultimodalEncoder, tmp_path: Path, claim: dict[str, int]
) -> None:
    training = Training(3, 4, "print", ("a",), ())
    save_encoder(tmp_path, encoder.state_dict(), EncoderConfig(1, encoder.config, encoder.modalities, training))
    config = json.loads((tmp_path / "config.json").read_text())
    config["model"] |= claim
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="weights do not fit"):
        load_encoder(tmp_path)


def test_order_of_modalities_does_not_matter(encoder: MultimodalEncoder, windows: tuple[Windows, Windows]) -> None:
    turned = encoder.for_modalities(encoder.modalities[::-1])
    torch.testing.assert_close(turned(*windows).tokens_BMTD.flip(1), encoder(*windows).tokens_BMTD)
    torch.testing.assert_close(turned(*windows).class_BMD.flip(1), encoder(*windows).class_BMD)


def test_an_encoder_narrows_to_a_scenes_modalities(
    config: ModelConfig, batch: WindowBatch, windows: tuple[Windows, Windows]
) -> None:
    encoder = new_encoder(config, batch.schemas, seed=4)
    lidar = encoder.modalities[1]
    narrow = encoder.for_modalities([ModalitySchema("unknown", 3), lidar])
    assert narrow.modalities == (lidar,)
    torch.testing.assert_close(narrow(*windows).class_BMD[:, 0], encoder(*windows).class_BMD[:, 1])
    with pytest.raises(BadInput, match=r"hsi \(9 bands\), lidar \(2 bands\), the scene has sar \(4 bands\)"):
        encoder.for_modalities([ModalitySchema("sar", 4)])


def test_an_encoder_of_wavelengths_reads_a_sensor_that_it_has_not_seen(config: ModelConfig) -> None:
    seen = ModalitySchema("hsi", 4, (450.0, 550.0, 650.0, 850.0))
    encoder = new_encoder(replace(config, stem="wavelength"), [seen], seed=4)
    generator = torch.Generator().manual_seed(0)
    values, valid = torch.randn(3, 25, 4, generator=generator), torch.ones(3, 25, dtype=torch.bool)
    known = encoder({"hsi": values}, {"hsi": valid}).class_BMD
    # the same bands in another order and under another name are the same light
    other = encoder.for_modalities([ModalitySchema("camera", 4, (850.0, 650.0, 550.0, 450.0))])
    torch.testing.assert_close(other({"camera": values.flip(2)}, {"camera": valid}).class_BMD, known)
    unplaced = encoder.for_modalities([ModalitySchema("hsi", 4)])
    assert not torch.allclose(unplaced({"hsi": values}, {"hsi": valid}).class_BMD, known, atol=1e-3)
