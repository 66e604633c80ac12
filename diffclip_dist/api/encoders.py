"""Encoders for Python users."""

from pathlib import Path

from diffclip_dist.feature_extraction.encoder_source import (
    NamedEncoder,
    fit_to_scene,
    open_encoder,
    read_encoder,
    without_encoder,
)
from shards.archive.manifest import SceneRecord

EncoderLike = str | Path | NamedEncoder | None


def load_encoder(folder: str | Path) -> NamedEncoder:
    """Reads a pretrained encoder.

    Args:
        folder: ``RUN/encoder``, as `pretrain` leaves it.

    Returns:
        The encoder, for `features` and `FewShotClassifier`; its attribute ``encoder`` is the PyTorch module.

    Raises:
        BadInput: the folder holds no encoder.

    Example:
        >>> encoder = dc.load_encoder("run/encoder")
    """
    return read_encoder(Path(folder))


def encoder_for(
    encoder: EncoderLike, record: SceneRecord, *, map_bands: bool = False, trust_units: bool = False
) -> NamedEncoder:
    """The encoder for one scene, see `fit_to_scene`; the scene's bands alone for None.

    Raises:
        BadInput: there is no such encoder, or it does not fit the scene.
    """
    if encoder is None:
        return without_encoder(record)
    if isinstance(encoder, NamedEncoder):
        return fit_to_scene(encoder, record, map_bands=map_bands, trust_units=trust_units)
    return open_encoder(str(encoder), record, map_bands=map_bands, trust_units=trust_units)
