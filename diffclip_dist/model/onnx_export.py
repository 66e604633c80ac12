"""An encoder as an ONNX graph, for programs without PyTorch.

Shapes: B windows, M modalities, N tokens of a window, C bands, D width.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from diffclip_dist.model.encoder import MultimodalEncoder
from shards.archive.publish import new_file
from shards.errors import BadInput, FailedRun

OPSET: Final = 20
CLASS_TOKENS: Final = "class_tokens"
TOKENS: Final = "tokens"
# Largest difference of a feature from PyTorch's. Features are normalised, so they are about 1; float32 gives about 2e-6
TOLERANCE: Final = 1e-4
CHECKED_WINDOWS: Final = 64


class _EncoderGraph(nn.Module):
    """`MultimodalEncoder.forward` without the choices that it makes by the values of its input."""

    def __init__(self, encoder: MultimodalEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, windows_BNC: Sequence[Tensor], valid_BN: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Class tokens (B, M, D) and tokens (B, M, N, D) of windows and masks, one a modality in their order."""
        encoder, batch = self.encoder, valid_BN[0].shape[0]
        t_B = torch.zeros(batch, dtype=torch.int64)
        positions_BND = encoder.positions_ND.expand(batch, -1, -1)
        sequences = [
            encoder.embed(schema, values_BNC, positions_BND, t_B)
            for schema, values_BNC in zip(encoder.modalities, windows_BNC, strict=True)
        ]
        present = [torch.cat([known.new_ones(batch, 1), known], dim=1) for known in valid_BN]
        encoded = (
            encoder.encode(sequences, present)
            if encoder.config.fusion == "joint"
            else [encoder.transformer(*pair) for pair in zip(sequences, present, strict=True)]
        )
        encoded_BMSD, valid_BMN = torch.stack(list(encoded), dim=1), torch.stack(list(valid_BN), dim=1)
        return encoded_BMSD[:, :, 0], encoded_BMSD[:, :, 1:] * valid_BMN[..., None]


def input_names(encoder: MultimodalEncoder) -> tuple[list[str], list[str]]:
    """Names of the graph's inputs: of each modality's windows, and of where they have data."""
    names = [schema.name for schema in encoder.modalities]
    return names, [f"{name}.valid" for name in names]


def export_onnx(encoder: MultimodalEncoder, file: Path) -> float:
    """Writes an encoder as an ONNX graph that onnxruntime gives the features of PyTorch with.

    Inputs are MODALITY, float32 (B, N, C), and MODALITY.valid, bool (B, N), for each modality, as
    `MultimodalEncoder.forward` takes them; outputs are class_tokens (B, M, D) and tokens (B, M, N, D). B is free. The
    modalities stand in the graph's metadata.

    Args:
        encoder: what is written, with the modalities that it has.
        file: absent.

    Returns:
        The largest difference of a feature from PyTorch's, over windows with and without missing pixels.

    Raises:
        BadInput: two modalities have one name.
        FailedRun: features differ by more than `TOLERANCE`; nothing has been written.
    """
    names = [schema.name for schema in encoder.modalities]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(
            f"encoder: {repeated[0]}: known with {names.count(repeated[0])} sets of bands, expected one; say with "
            "--archive and --scene for which scene the graph is"
        )
    encoder = encoder.eval()
    batch = torch.export.Dim("batch")
    windows, valid = _drawn_windows(encoder, 2)
    each = [{0: batch}] * len(names)
    # with gradients on, attention takes torch's fused kernel, which has an ONNX form
    with torch.enable_grad():
        program = torch.export.export(_EncoderGraph(encoder), (windows, valid), dynamic_shapes=(each, each))
    of_values, of_masks = input_names(encoder)
    graph = torch.onnx.export(
        program,
        (),
        dynamo=True,
        opset_version=OPSET,
        input_names=[*of_values, *of_masks],
        output_names=[CLASS_TOKENS, TOKENS],
        verbose=False,
    )
    assert graph is not None
    modalities = json.dumps([asdict(schema) for schema in encoder.modalities])
    graph.model.metadata_props.update(modalities=modalities, window=str(encoder.config.window))
    with new_file(file) as partial:
        graph.save(partial)
        difference = _difference(encoder, partial)
        if difference > TOLERANCE:
            raise FailedRun(f"{file}: features differ from PyTorch's by {difference:.1e}, expected {TOLERANCE:.0e}")
    return difference


def _drawn_windows(encoder: MultimodalEncoder, count: int) -> tuple[list[Tensor], list[Tensor]]:
    """Windows (B, N, C) and masks (B, N) of each modality; of every second window some pixels are missing."""
    generator = torch.Generator().manual_seed(0)
    windows, masks = [], []
    for schema in encoder.modalities:
        valid_BN = torch.rand(count, encoder.config.tokens, generator=generator) > 0.3
        valid_BN[::2] = True
        values_BNC = torch.randn(count, encoder.config.tokens, schema.bands, generator=generator)
        windows.append(values_BNC * valid_BN[..., None])
        masks.append(valid_BN)
    return windows, masks


def _difference(encoder: MultimodalEncoder, file: Path) -> float:
    """The largest difference of a feature from PyTorch's; by windows that are all whole, and by all windows."""
    session = onnxruntime.InferenceSession(file.read_bytes(), providers=["CPUExecutionProvider"])
    windows, valid = _drawn_windows(encoder, CHECKED_WINDOWS)
    of_values, of_masks = input_names(encoder)
    largest = 0.0
    for chosen in (slice(None, None, 2), slice(None)):
        part, masks = [one[chosen] for one in windows], [one[chosen] for one in valid]
        with torch.no_grad():
            expected = encoder(dict(zip(of_values, part, strict=True)), dict(zip(of_values, masks, strict=True)))
        fed: dict[str, Any] = dict(zip([*of_values, *of_masks], [one.numpy() for one in [*part, *masks]], strict=True))
        found = session.run([CLASS_TOKENS, TOKENS], fed)
        for one, other in zip(found, (expected.class_BMD, expected.tokens_BMTD), strict=True):
            largest = max(largest, float(np.abs(one - other.numpy()).max()))
    return largest
