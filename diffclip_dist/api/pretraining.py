"""Pretraining for Python users; the only part of the interface that needs Ray and DeepSpeed."""

from pathlib import Path

from diffclip_dist.train.cluster import driver
from diffclip_dist.train.pretrain_config import resolve_config
from shards.archive.archive import Archive


def pretrain(
    archive: str | Path | Archive,
    run_dir: str | Path,
    *,
    resume: bool = False,
    preset: str | None = None,
    **settings: object,
) -> Path:
    """Pretrains an encoder on an archive's scenes without labels, as ``pretrain.py`` does.

    Joins the Ray cluster of this process, else starts one on this machine and stops it at the end.

    Args:
        archive: the archive, or its place.
        run_dir: the run's folder.
        resume: goes on from the newest checkpoint in it.
        preset: sizes of the model: ``published``, ``base``, ``large`` or ``huge``; None for the small default.
        **settings: fields of `PretrainConfig`, such as ``steps=2000``, ``workers=8``, ``zero_stage=2``, ``seed=1``;
            sections as mappings, such as ``model={"depth": 6}``.

    Returns:
        The folder of the encoder.

    Raises:
        BadInput: archive, settings or folder do not allow this run; nothing has been written.
        FailedRun: it was started and could not be finished.

    Example:
        >>> encoder = dc.pretrain("archive", "run", steps=2000)
    """
    location = archive.location if isinstance(archive, Archive) else str(archive)
    options = {**settings, "archive": location, "run_dir": str(run_dir)}
    return driver.pretrain(resolve_config(None, options, [] if preset is None else [f"preset={preset}"]), resume)
