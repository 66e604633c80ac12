"""Reconstructs masked windows with a run's model at each checkpoint, as figures and as a picture.

The windows, masks and noise are those of the first step of each sensor combination. They depend on the seed alone, so
the pictures of a run can be compared. Training does not change: the chain runs on a copy of the weights.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from diffclip_dist.data.batches import RankShare, WindowBatch
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.mask_diffusion import MaskDiffusion, NoiseAndMasks, draw_noise_and_masks
from diffclip_dist.model.reconstruction_error import ModalityErrors, reconstruction_errors
from diffclip_dist.model.sampling import reverse_chain
from diffclip_dist.train.backend.deepspeed_engine import build_model
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import trained_weights
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.monitor.reconstruction_picture import DrawnChain, draw_reconstruction, save_picture
from diffclip_dist.train.monitor.run_log import RunLog
from shards.archive.manifest import SceneRecord
from shards.archive.store import LocalStore

CHAIN_STEPS: Final = 10
PICTURE_FILE: Final = "reconstruction.png"
FIGURES_FILE: Final = "reconstruction.json"
UNITS: Final = "standard deviations of each band over its scene"


@dataclass(frozen=True)
class FixedWindows:
    """Windows of one sensor combination.

    Attributes:
        batch: the windows.
        drawn: their masks and noise, as in their step.
        scenes: the scene that each window comes from.
    """

    batch: WindowBatch
    drawn: NoiseAndMasks
    scenes: tuple[SceneRecord, ...]


class Reconstruction:
    """Reconstructs the same windows throughout a run.

    Args:
        context: of this rank.
    """

    def __init__(self, context: TrainContext) -> None:
        self._context = context
        self._config = context.config

    def show(self, engine: DeepSpeedEngine, step: int, log: RunLog | None) -> None:
        """Writes ``RUN/reconstruction.png`` and ``.json`` and shows them in TensorBoard; every rank must call.

        Args:
            engine: with the weights.
            step: steps done.
            log: of rank 0, which reconstructs; ``None`` on other ranks, which only help to gather the weights.
        """
        if self._config.reconstruct_windows == 0 or not self._config.model.reconstructs:
            return
        weights = trained_weights(engine, "")
        if log is None:
            return
        model = build_model(self._config, self._context.modalities)
        model.load_state_dict(weights)
        model.to(self._context.device)
        chains = [self._reconstruct(model, fixed) for fixed in self._windows]
        errors = [error for chain in chains for error in chain.errors]
        run_dir = Path(self._config.run_dir)
        picture_HWC = save_picture(draw_reconstruction(chains, step), run_dir / PICTURE_FILE)
        self._write_figures(run_dir / FIGURES_FILE, step, errors)  # at once: both are of one step
        figures = {
            f"{name}/{error.key}": getattr(error.all_bands, name)
            for error in errors
            for name in ("rmse", "skill", "skill_over_window_mean")
        }
        log.show("reconstruction", picture_HWC, figures, step)

    @cached_property
    def _windows(self) -> tuple[FixedWindows, ...]:
        wanted, whole = self._config.reconstruct_windows, self._config.global_batch
        # the first windows of the global batch, whatever part this rank has, without reading all of it
        parts = max(n for n in range(1, max(whole // wanted, 1) + 1) if whole % n == 0)
        stream = replace(self._context.stream, share=RankShare(0, parts), loader_processes=0)
        fixed = []
        for step in stream.data.order.first_steps():
            samples = stream.samples(step)
            group = stream.data.groups[samples.sensor]
            batch = next(next(stream.batches(step, step + 1)).split(wanted))
            scenes = tuple(group.scenes[group.tiles[tile].scene] for tile in samples.tile_B[: len(batch.positions_B)])
            fixed.append(
                FixedWindows(batch, draw_noise_and_masks(batch, self._config.model, self._config.seed, step), scenes)
            )
        return tuple(fixed)

    def _reconstruct(self, model: MaskDiffusion, fixed: FixedWindows) -> DrawnChain:
        chain = reverse_chain(model, fixed.batch, fixed.drawn, CHAIN_STEPS)
        return DrawnChain(fixed.batch, chain, reconstruction_errors(fixed.batch, chain), fixed.scenes)

    def _write_figures(self, file: Path, step: int, errors: list[ModalityErrors]) -> None:
        known = {schema.key: schema for schema in self._context.modalities}
        scenes = {scene.name: scene for fixed in self._windows for scene in fixed.scenes}.values()
        report = {
            "step": step,
            "units": UNITS,
            "generated_scenes": sorted(scene.name for scene in scenes if scene.generated),
            "modalities": [_described(error, known[error.key]) for error in errors],
        }
        LocalStore(file.parent).write(file.name, (json.dumps(report, indent=1, allow_nan=False) + "\n").encode())


def _described(errors: ModalityErrors, schema: ModalitySchema) -> Mapping[str, Any]:
    """A modality's figures as JSON, each band with its number, from 1, and its wavelength."""
    centres = schema.wavelengths_nm or (None,) * schema.bands
    bands = [
        {"band": number, "wavelength_nm": centre, **asdict(band)}
        for number, (centre, band) in enumerate(zip(centres, errors.bands, strict=True), start=1)
    ]
    links = [{"timestep": timestep, "skill": skill} for timestep, skill in errors.skill_by_timestep]
    return {**asdict(errors), "bands": bands, "skill_by_timestep": links}
