"""Opens encoders: pretrained ones, random ones as a control, or none."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import Training, load_encoder, new_encoder, read_config
from shards.archive.manifest import SceneRecord

CONTROL: Final = "none"
BANDS_ONLY: Final = "bands only"
CONTROL_SEED: Final = 0


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder and what is known of its weights.

    Attributes:
        encoder: the module.
        label: its name in results: a folder, ``none``, ``none:FOLDER`` or ``bands only``.
        training: where its weights come from.
    """

    encoder: FeatureEncoder
    label: str
    training: Training

    def describe(self) -> str:
        """One line on the weights."""
        if isinstance(self.encoder, BandsOnly):
            return "no encoder: bands alone"
        if self.training.steps == 0:
            return "random weights: the control for what pretraining brings"
        scenes = ", ".join(
            f"{name} (generated)" if name in self.training.generated_scenes else name for name in self.training.scenes
        )
        return f"pretrained for {self.training.steps} steps on {scenes}, without labels"


def read_encoder(folder: Path) -> NamedEncoder:
    """Reads a pretrained encoder with all the modalities that it knows.

    Raises:
        BadInput: the folder holds no encoder.
    """
    return NamedEncoder(load_encoder(folder), str(folder), read_config(folder).training)


def fit_to_scene(named: NamedEncoder, record: SceneRecord) -> NamedEncoder:
    """The part of an encoder that a scene needs, frozen, see `encoder_for_scene`.

    Raises:
        BadInput: it does not fit the scene.
    """
    assert isinstance(named.encoder, MultimodalEncoder)
    return replace(named, encoder=encoder_for_scene(named.encoder, record, named.label))


def without_encoder(record: SceneRecord) -> NamedEncoder:
    """What stands in for an encoder where a scene's bands alone are used."""
    schemas = [ModalitySchema.of(modality) for modality in record.modalities]
    return NamedEncoder(BandsOnly(schemas), BANDS_ONLY, Training(0, 0, "", (), ()))


def open_encoder(spec: str, record: SceneRecord) -> NamedEncoder:
    """Opens the encoder that ``--encoder`` names.

    Args:
        spec: an encoder's folder; ``none`` for random weights of the default configuration; ``none:FOLDER`` for random
            weights of the configuration in that folder.
        record: the scene it is for.

    Raises:
        BadInput: there is no such encoder, or it does not fit the scene.
    """
    kind, _, folder = spec.partition(":")
    if kind != CONTROL:
        return fit_to_scene(read_encoder(Path(spec)), record)
    config = read_config(Path(folder)).model if folder else ModelConfig()
    schemas = [ModalitySchema.of(modality) for modality in record.modalities]
    encoder = encoder_for_scene(new_encoder(config, schemas, CONTROL_SEED), record, spec)
    return NamedEncoder(encoder, spec, Training(0, CONTROL_SEED, "", (), ()))
