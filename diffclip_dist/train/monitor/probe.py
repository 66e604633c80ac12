"""Probes a run's encoder on a labelled scene at each checkpoint: k-nearest-neighbour and linear-probe accuracy.

Labels are used for these figures alone. No gradient, no draw of the run and no weight depends on them.

Shapes: P pixels, N tokens of a window, F features.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist
from torch import Tensor

from diffclip_dist.data.labelled_windows import labelled_windows
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.model.saved_encoder import new_encoder
from diffclip_dist.train.backend.deepspeed_import import DeepSpeedEngine
from diffclip_dist.train.backend.sharded_state import trained_weights
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.monitor.probe_classifiers import NEIGHBOURS, ProbeAccuracy, probe_accuracy
from diffclip_dist.train.run_files import PROBE_FILE
from shards.archive.archive import StoredScene
from shards.archive.store import LocalStore
from shards.errors import BadInput

_WINDOWS_AT_ONCE: Final = 256


class Probe:
    """Probes the same pixels throughout a run; rank 0 computes, and other ranks only help to gather the weights.

    Args:
        context: of this rank.

    Raises:
        BadInput: the scene has too few labels; on every rank.
    """

    def __init__(self, context: TrainContext) -> None:
        self._context = context
        self._pixels: _ProbedPixels | None = None
        if context.plan.probe is None:
            return
        fault: list[str | None] = [None]
        if dist.get_rank() == 0:
            try:
                self._pixels = _ProbedPixels(context, context.plan.probe)
            except BadInput as error:
                fault = [f"probe.{error}"]
        dist.broadcast_object_list(fault, src=0)
        if fault[0] is not None:
            raise BadInput(fault[0])

    @property
    def wanted(self) -> bool:
        """Whether the run asks for figures; the same on every rank."""
        return self._context.plan.probe is not None

    def measure(self, engine: DeepSpeedEngine) -> ProbeAccuracy | None:
        """Accuracy with the weights that would be exported now; None where none is asked for, and on other ranks.

        Every rank must call, after one step or more.
        """
        if not self.wanted:
            return None
        weights = trained_weights(engine, "encoder.")
        return None if self._pixels is None else self._pixels.accuracy_with(weights)


class _ProbedPixels:
    """The drawn pixels and a copy of the encoder; writes ``RUN/probe.json``."""

    def __init__(self, context: TrainContext, scene: StoredScene) -> None:
        began = time.perf_counter()
        config, record = context.config, scene.record
        self._device = context.device
        self._centre = config.model.tokens // 2
        self._encoder = new_encoder(config.model, context.modalities, config.seed)
        schemas = [ModalitySchema.of(modality) for modality in record.modalities]
        self._part = self._encoder.for_modalities(schemas)  # shares the parameters
        self._encoder.to(self._device)
        self._part.to(self._device)
        self._drawn = labelled_windows(
            scene, self._part.modalities, config.model.window, config.probe.pixels, config.seed
        )
        bands_PF = torch.cat([values[:, self._centre] for values in self._drawn.values.values()], dim=1)
        class_ids = sorted(set(self._drawn.class_P.tolist()))
        report = {
            "scene": record.name,
            "archive": scene.archive.location,
            "generated": record.generated,
            "modalities": [schema.name for schema in self._part.modalities],
            "classes": [record.classes[class_id] for class_id in class_ids],
            "fit_pixels": int(self._drawn.fits_P.sum()),
            "test_pixels": int((~self._drawn.fits_P).sum()),
            "neighbours": NEIGHBOURS,
            "units": "percent of the pixels to test",
            "chance": 100.0 / len(class_ids),
            "bands_alone": asdict(self._accuracy(bands_PF)),
            "untrained": asdict(self._accuracy(self._features())),
            "seconds": round(time.perf_counter() - began, 3),
        }
        content = (json.dumps(report, indent=1, allow_nan=False) + "\n").encode()
        LocalStore(Path(config.run_dir)).write(PROBE_FILE, content)

    def accuracy_with(self, weights: dict[str, Tensor]) -> ProbeAccuracy:
        """Accuracy with these weights of the encoder."""
        self._encoder.load_state_dict(weights)
        return self._accuracy(self._features())

    def _features(self) -> Tensor:
        """Of each pixel (P, F): its window's class token and its own token, of every modality."""
        centre_1 = torch.tensor([self._centre], device=self._device)
        parts = []
        with torch.no_grad():
            for start in range(0, len(self._drawn.class_P), _WINDOWS_AT_ONCE):
                piece = slice(start, start + _WINDOWS_AT_ONCE)
                values, valid = (
                    {name: each[piece].to(self._device) for name, each in of_modality.items()}
                    for of_modality in (self._drawn.values, self._drawn.valid)
                )
                features = self._part(values, valid, centre_1)
                both_BMF = torch.cat([features.class_BMD, features.tokens_BMTD[:, :, 0]], dim=2)
                parts.append(both_BMF.flatten(1).cpu())
        return torch.cat(parts)

    def _accuracy(self, features_PF: Tensor) -> ProbeAccuracy:
        return probe_accuracy(features_PF, self._drawn.class_P, self._drawn.fits_P)
