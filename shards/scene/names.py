"""Names of scenes and modalities: they become paths, WebDataset keys and Zarr arrays."""

import re
from typing import Annotated

from pydantic import AfterValidator

RESERVED_NAMES = frozenset({"labels", "split_train", "split_test", "spatial_ref", "x", "y", "json"})


def checked_scene_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it would not do as a file's name or a WebDataset key, which a dot ends.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
        raise ValueError(f"{name!r} must be 1 to 64 letters, digits, '-' or '_', the first a letter or digit")
    return name


def checked_modality_name(name: str) -> str:
    """The name itself.

    Raises:
        ValueError: it would not do as a WebDataset extension or a Zarr array beside the others.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,31}", name) or name in RESERVED_NAMES:
        raise ValueError(
            f"{name!r} must be 1 to 32 letters, digits, '-' or '_', the first a letter, "
            f"and none of {', '.join(sorted(RESERVED_NAMES))}"
        )
    return name


SceneName = Annotated[str, AfterValidator(checked_scene_name)]
ModalityName = Annotated[str, AfterValidator(checked_modality_name)]
