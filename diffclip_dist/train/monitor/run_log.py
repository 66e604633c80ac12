"""The log that rank 0 of a run writes: ``metrics.jsonl`` and TensorBoard events."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from diffclip_dist.train.monitor.new_lines import NewLines
from diffclip_dist.train.monitor.probe_classifiers import ProbeAccuracy
from diffclip_dist.train.run_files import METRICS_FILE
from shards.archive.publish import publish_file


@dataclass(frozen=True)
class StepMetrics:
    """One logged step.

    Attributes:
        step: steps done, counted from 1.
        loss: of the step's global batch.
        lr: learning rate.
        samples_per_s: over all workers, wall clock from end to end since the last logged step.
        samples_per_s_per_worker: the same by worker, which is a GPU where there are any.
        data_wait_fraction: share of that time in which rank 0 waited for samples.
        mfu: model FLOPs utilisation against the matrix rate measured at the start of the run.
        grad_norm: global gradient norm before clipping.
        memory_bytes: most memory that rank 0 has used so far, on its GPU or else in its process.
        loss_by_modality: ``visible/NAME`` and ``masked/NAME``, mean squared errors in standardised units; and
            ``contrast/NAME``, a mean cross-entropy, where parts of windows are compared.
    """

    step: int
    loss: float
    lr: float
    samples_per_s: float
    samples_per_s_per_worker: float
    data_wait_fraction: float
    mfu: float
    grad_norm: float | None
    memory_bytes: int
    loss_by_modality: Mapping[str, float]


class RunLog:
    """Appends metrics; after a resume, drops the lines of steps that the run takes again."""

    def __init__(self, run_dir: Path, start: int) -> None:
        self._file = run_dir / METRICS_FILE
        partial = self._file.with_suffix(".partial")
        with partial.open("w") as kept:
            for line in NewLines(self._file).read():
                if json.loads(line)["step"] <= start:
                    kept.write(f"{line}\n")
        publish_file(partial, self._file)
        self._lines = self._file.open("a")
        self._events = SummaryWriter(str(run_dir / "tensorboard"), purge_step=start + 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.close()
        self._events.close()

    def write(self, metrics: StepMetrics, probe: ProbeAccuracy | None = None) -> None:
        """Logs one step, with the accuracy of the probe where there was one; a reader sees whole lines only."""
        record = asdict(metrics)
        if probe is not None:
            record["probe"] = asdict(probe)
            for name, value in record["probe"].items():
                self._events.add_scalar(f"probe/{name}", value, metrics.step)
        assert math.isfinite(metrics.loss), "a non-finite loss stops the run before it is logged"
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in record.items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, metrics.step)
        for name, value in metrics.loss_by_modality.items():
            self._events.add_scalar(f"loss/{name}", value, metrics.step)

    def show(
        self, name: str, picture_HWC: npt.NDArray[np.uint8], figures: Mapping[str, float | None], step: int
    ) -> None:
        """Adds a picture and the figures beneath its name to TensorBoard; leaves out figures that are None."""
        self._events.add_image(name, picture_HWC, step, dataformats="HWC")
        for figure, value in figures.items():
            if value is not None:
                self._events.add_scalar(f"{name}/{figure}", value, step)
        self._events.flush()
