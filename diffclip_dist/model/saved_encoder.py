"""The consolidated encoder on disk: ``model.safetensors`` and ``config.json``, the same for every ZeRO stage."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import pydantic
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from diffclip_dist.data.modality_statistics import ModalityStatistics
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from shards.archive.publish import publish_file
from shards.errors import BadInput

FORMAT_VERSION: Final = 1
WEIGHTS_FILE: Final = "model.safetensors"
CONFIG_FILE: Final = "config.json"
# inside a run's folder and inside a classifier's
ENCODER_FOLDER: Final = "encoder"


@dataclass(frozen=True)
class Training:
    """The pretraining of an encoder.

    Attributes:
        steps: pretraining steps taken; 0 for random weights.
        seed: of the run.
        archive_fingerprint: of the archive it was pretrained on; empty for random weights.
        scenes: names of the pretraining scenes.
        generated_scenes: those among them that are generated.
        ema_decay: of the exponential moving average of the weights; 0 if they are those of the last step.
    """

    steps: int
    seed: int
    archive_fingerprint: str
    scenes: tuple[str, ...]
    generated_scenes: tuple[str, ...]
    ema_decay: float = 0.0


@dataclass(frozen=True)
class EncoderConfig:
    """The content of ``config.json``.

    Attributes:
        format_version: of the folder.
        model: sizes and settings of the network.
        modalities: what the encoder reads.
        training: where its weights come from.
        statistics: of scenes that it was trained on; empty in an encoder that kept none.
        weights_sha256: of ``model.safetensors``; empty in an encoder of an earlier version, which is not compared.
    """

    format_version: int
    model: ModelConfig
    modalities: tuple[ModalitySchema, ...]
    training: Training
    statistics: tuple[ModalityStatistics, ...] = ()
    weights_sha256: str = ""


def save_encoder(folder: Path, weights: dict[str, Tensor], config: EncoderConfig) -> None:
    """Writes an encoder; the configuration comes last, and a folder without it is not an encoder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).unlink(missing_ok=True)
    contiguous = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in weights.items()}
    partial_weights = folder / f".{WEIGHTS_FILE}.partial"
    safetensors.torch.save_file(contiguous, partial_weights)
    config = replace(config, weights_sha256=sha256_of(partial_weights))
    publish_file(partial_weights, folder / WEIGHTS_FILE)
    partial_config = folder / f".{CONFIG_FILE}.partial"
    partial_config.write_text(json.dumps(asdict(config), indent=2) + "\n")
    publish_file(partial_config, folder / CONFIG_FILE)


def read_config(folder: Path) -> EncoderConfig:
    """Reads an encoder's configuration.

    Raises:
        BadInput: the folder holds no encoder, or one that this version cannot read.
    """
    file = folder / CONFIG_FILE
    try:
        config = pydantic.TypeAdapter(EncoderConfig).validate_json(file.read_bytes(), extra="forbid")
    except FileNotFoundError:
        raise BadInput(
            f"{folder}: expected an encoder's {CONFIG_FILE} and {WEIGHTS_FILE}, found no {CONFIG_FILE}"
            + _encoder_inside(folder)
        ) from None
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "content"
        raise BadInput(f"{file}: {field}: {first['msg']}{_encoder_inside(folder)}") from None
    if config.format_version != FORMAT_VERSION:
        raise BadInput(f"{file}: format_version: expected {FORMAT_VERSION}, found {config.format_version}")
    return config


def _encoder_inside(folder: Path) -> str:
    """The end of a message on a folder that is no encoder: where a run's or a classifier's folder has its encoder."""
    inside = folder / ENCODER_FOLDER
    return f"; did you mean the encoder {inside}?" if (inside / CONFIG_FILE).is_file() else ""


def load_encoder(folder: Path) -> MultimodalEncoder:
    """Reads an encoder, ready for clean windows.

    Memory is taken for weights that the file holds, never for sizes that the configuration alone claims.

    Raises:
        BadInput: the folder holds no encoder, its weights do not fit its configuration, or they are not those that
            were saved with it.
    """
    config = read_config(folder)
    file = folder / WEIGHTS_FILE
    try:
        weights = safetensors.torch.load_file(file)
        check_sha256(file, config.weights_sha256)
        if config.model.depth > len(weights):
            raise RuntimeError(f"{len(weights)} tensors for a depth of {config.model.depth}")
        with torch.device("meta"):
            expected = MultimodalEncoder(config.model, config.modalities)
        expected.load_state_dict({name: tensor.to("meta") for name, tensor in weights.items()})
        encoder = MultimodalEncoder(config.model, config.modalities)
        encoder.load_state_dict(weights)
    except FileNotFoundError:
        raise BadInput(f"{folder}: expected the encoder's {WEIGHTS_FILE}, found none") from None
    # torch raises the middle two for sizes beyond its integers
    except (RuntimeError, TypeError, OverflowError, safetensors.SafetensorError) as error:
        raise BadInput(f"{file}: weights do not fit {CONFIG_FILE}: {str(error).splitlines()[0]}") from None
    return encoder.eval()


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def check_sha256(weights: Path, expected: str) -> None:
    """Compares weights with the hash that stands in the configuration beside them; an empty one is not compared.

    Raises:
        BadInput: they are others than were saved.
    """
    if expected and sha256_of(weights) != expected:
        raise BadInput(f"{weights}: its hash is not the one in {CONFIG_FILE}; fetch or write the folder anew")


def new_encoder(config: ModelConfig, modalities: Sequence[ModalitySchema], seed: int) -> MultimodalEncoder:
    """An encoder with random weights, the control for what pretraining brings."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MultimodalEncoder(config, modalities).eval()
