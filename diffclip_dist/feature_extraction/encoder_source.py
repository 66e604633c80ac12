"""The encoder that a command names: pretrained, or the random one that shows what pretraining brings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import Training, load_encoder, new_encoder, read_config
from shards.archive.manifest import SceneRecord

CONTROL: Final = "none"
CONTROL_SEED: Final = 0


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder for one scene, and what is known of its weights.

    Attributes:
        encoder: frozen, with the scene's modalities.
        label: how results name it: a folder, ``none`` or ``none:FOLDER``.
        training: where its weights come from.
    """

    encoder: MultimodalEncoder
    label: str
    training: Training

    def describe(self) -> str:
        """One line on the weights."""
        if self.training.steps == 0:
            return "random weights: the control for what pretraining brings"
        scenes = ", ".join(
            f"{name} (generated)" if name in self.training.generated_scenes else name for name in self.training.scenes
        )
        return f"pretrained for {self.training.steps} steps on {scenes}, without labels"


def open_encoder(spec: str, record: SceneRecord) -> NamedEncoder:
    """Opens what ``--encoder`` names.

    Args:
        spec: an encoder's folder; ``none`` for random weights of the default configuration; ``none:FOLDER`` for random
            weights of the configuration in that folder.
        record: the scene it is for.

    Raises:
        BadInput: there is no such encoder, or it does not fit the scene.
    """
    kind, _, folder = spec.partition(":")
    if kind != CONTROL:
        encoder = encoder_for_scene(load_encoder(Path(spec)), record, spec)
        return NamedEncoder(encoder, spec, read_config(Path(spec)).training)
    config = read_config(Path(folder)).model if folder else ModelConfig()
    schemas = [ModalitySchema.of(modality) for modality in record.modalities]
    encoder = encoder_for_scene(new_encoder(config, schemas, CONTROL_SEED), record, spec)
    return NamedEncoder(encoder, spec, Training(0, CONTROL_SEED, "", (), ()))
