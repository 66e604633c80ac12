"""A run's plan: its settings, its opened archive and the size of its model, which fit each other.

The dry run, the checks before a run, the driver and every rank share one plan. The driver opens it. Ray puts it into
its object store once, and each rank takes it from there with the manifest inside. So no rank and no loader process
lists or verifies the archive's files again.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.training_data import TrainingData
from diffclip_dist.model.mask_diffusion import MaskDiffusion
from diffclip_dist.train.pretrain_config import PretrainConfig
from shards.archive.archive import Archive, StoredScene
from shards.archive.manifest import Manifest
from shards.archive.store import absolute_location
from shards.errors import BadInput


@dataclass(frozen=True)
class TrainPlan:
    """One run.

    Attributes:
        config: the settings.
        data: the archive and the order of its samples.
        parameters: number of the model's parameters.
        encoder_parameters: number of those that are exported.
        probe: the labelled scene that the encoder is probed on; None for no probe.
    """

    config: PretrainConfig
    data: TrainingData
    parameters: int
    encoder_parameters: int
    probe: StoredScene | None = None

    @property
    def manifest(self) -> Manifest:
        """What the archive holds."""
        return self.data.archive.manifest

    @property
    def modalities(self) -> tuple[ModalitySchema, ...]:
        """What the model is built for."""
        return self.data.modalities


def open_plan(config: PretrainConfig) -> TrainPlan:
    """Opens and verifies a run's archive and plans the run; writes nothing.

    Args:
        config: the settings; the plan's have absolute folders, since a worker may start in another one.

    Raises:
        BadInput: there is no archive, or the settings do not fit it.
        DamagedArchive: a file is not as the manifest says.
    """
    absolute = replace(
        config,
        archive=absolute_location(config.archive),
        run_dir=str(Path(config.run_dir).resolve()),
        storage_path=config.storage_path and absolute_location(config.storage_path),
        probe=replace(config.probe, archive=config.probe.archive and absolute_location(config.probe.archive)),
    )
    return plan_run(absolute, Archive.open(absolute.archive, absolute.stream.verify))


def plan_run(config: PretrainConfig, archive: Archive) -> TrainPlan:
    """Plans a run on an archive that is open already; reads no file but the manifest of a probe's own archive.

    Raises:
        BadInput: the settings do not fit the archive.
    """
    data = TrainingData.of(archive, config.model.window, config.order)
    with torch.device("meta"):
        model = MaskDiffusion(config.model, data.modalities)
    parameters, encoder_parameters = (
        sum(parameter.numel() for parameter in part.parameters()) for part in (model, model.encoder)
    )
    return TrainPlan(config, data, parameters, encoder_parameters, find_probe_scene(config, archive, data.modalities))


def find_probe_scene(
    config: PretrainConfig, archive: Archive, modalities: tuple[ModalitySchema, ...]
) -> StoredScene | None:
    """The scene that a run is probed on; None where it asks for none.

    Raises:
        BadInput: there is no such scene, it has no labels, or the encoder reads none of its modalities.
    """
    probe = config.probe
    if not probe.scene:
        return None
    held = Archive.open_unverified(probe.archive) if probe.archive else archive
    scene = held[probe.scene]
    if not scene.record.classes:
        labelled = [record.name for record in held.manifest.scenes if record.classes]
        raise BadInput(
            f"probe.scene: {probe.scene} of {held.location} has no labels; with labels: {', '.join(labelled) or 'none'}"
        )
    known = {schema.key for schema in modalities}
    theirs = [ModalitySchema.of(modality) for modality in scene.record.modalities]
    if config.model.stem != "wavelength" and not known & {schema.key for schema in theirs}:
        raise BadInput(
            f"probe.scene: {probe.scene}: expected a modality that the run's scenes have, with the same bands; it has "
            f"{', '.join(f'{schema.name} ({schema.bands} bands)' for schema in theirs)}"
        )
    return StoredScene(held, replace(scene.record, tiles=()))
