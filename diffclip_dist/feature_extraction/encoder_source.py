"""Opens encoders: pretrained ones, random ones as a control, or none."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from diffclip_dist.data.modality_statistics import ModalityStatistics
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.band_match import BandMatch, match_modalities, pick_record
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene
from diffclip_dist.feature_extraction.unit_check import check_units
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.saved_encoder import Training, load_encoder, new_encoder, read_config
from shards.archive.manifest import SceneRecord

CONTROL: Final = "none"
SHIPPED: Final = "shipped"
# benchmarks/shipped_encoder.py pretrains it over generated scenes of many sensors
SHIPPED_FOLDER: Final = Path(__file__).resolve().parents[1] / "shipped_encoder"
MOST_NAMED: Final = 5  # scenes that are named one by one
BANDS_ONLY: Final = "bands only"
CONTROL_SEED: Final = 0


@dataclass(frozen=True)
class NamedEncoder:
    """An encoder and what is known of its weights.

    Attributes:
        encoder: the module.
        label: its name in results: a folder, ``shipped``, ``none``, ``none:FOLDER`` or ``bands only``.
        training: where its weights come from.
        statistics: of scenes that it was trained on, where known.
        matches: where it was fitted to a scene, modality name to the scene's bands that it reads.
    """

    encoder: FeatureEncoder
    label: str
    training: Training
    statistics: tuple[ModalityStatistics, ...] = ()
    matches: Mapping[str, BandMatch] = field(default_factory=dict)

    def describe(self) -> str:
        """One line on the weights."""
        if isinstance(self.encoder, BandsOnly):
            return "no encoder: bands alone"
        if self.training.steps == 0:
            return "random weights: the control for what pretraining brings"
        generated, names = self.training.generated_scenes, self.training.scenes
        scenes = (
            f"{len(names)} scenes ({len(generated)} of them generated)"
            if len(names) > MOST_NAMED
            else ", ".join(f"{name} (generated)" if name in generated else name for name in names)
        )
        return f"pretrained for {self.training.steps} steps on {scenes}, without labels"


def read_encoder(folder: Path) -> NamedEncoder:
    """Reads a pretrained encoder with all the modalities that it knows.

    Raises:
        BadInput: the folder holds no encoder.
    """
    config = read_config(folder)
    return NamedEncoder(load_encoder(folder), str(folder), config.training, config.statistics)


def read_shipped() -> NamedEncoder:
    """The encoder that comes with the package, for scenes of any sensor.

    It knows no units: the generated scenes that it was pretrained on say nothing of how a user's values are scaled.
    """
    return replace(read_encoder(SHIPPED_FOLDER), label=SHIPPED, statistics=())


def fit_to_scene(
    named: NamedEncoder, record: SceneRecord, *, map_bands: bool = False, trust_units: bool = False
) -> NamedEncoder:
    """The part of an encoder that a scene needs, frozen, see `encoder_for_scene`.

    It reads the scene as `pick_bands` gives it for its `matches`.

    Args:
        named: the encoder.
        record: the scene.
        map_bands: where bands disagree, take the nearest by wavelength, see `match_modalities`. An encoder with the
            ``wavelength`` stem reads all bands as they are.
        trust_units: skip `check_units`.

    Raises:
        BadInput: it does not fit the scene.
    """
    assert isinstance(named.encoder, MultimodalEncoder)
    known = named.encoder.modalities
    if named.encoder.any_sensor:
        keys = {ModalitySchema.of(modality).key for modality in record.modalities}
        known = tuple(schema for schema in known if schema.key in keys)
    matches = match_modalities(known, record, named.label, map_bands)
    picked = pick_record(record, matches)
    if not trust_units:
        check_units(named.statistics, picked, matches, named.label)
    return replace(named, encoder=encoder_for_scene(named.encoder, picked, named.label), matches=matches)


def without_encoder(record: SceneRecord) -> NamedEncoder:
    """What stands in for an encoder where a scene's bands alone are used."""
    schemas = [ModalitySchema.of(modality) for modality in record.modalities]
    return NamedEncoder(BandsOnly(schemas), BANDS_ONLY, Training(0, 0, "", (), ()))


def open_encoder(spec: str, record: SceneRecord, *, map_bands: bool = False, trust_units: bool = False) -> NamedEncoder:
    """Opens the encoder that ``--encoder`` names, fitted to a scene.

    Args:
        spec: an encoder's folder; ``shipped`` for the one that comes with the package; ``none`` for random weights of
            the default configuration; ``none:FOLDER`` for random weights of the configuration in that folder.
        record: the scene it is for.
        map_bands: as `fit_to_scene` takes it.
        trust_units: as `fit_to_scene` takes it.

    Raises:
        BadInput: there is no such encoder, or it does not fit the scene.
    """
    kind, _, folder = spec.partition(":")
    if kind != CONTROL:
        named = read_shipped() if spec == SHIPPED else read_encoder(Path(spec))
        return fit_to_scene(named, record, map_bands=map_bands, trust_units=trust_units)
    config = read_config(Path(folder)).model if folder else ModelConfig()
    schemas = [ModalitySchema.of(modality) for modality in record.modalities]
    encoder = encoder_for_scene(new_encoder(config, schemas, CONTROL_SEED), record, spec)
    return NamedEncoder(encoder, spec, Training(0, CONTROL_SEED, "", (), ()))
