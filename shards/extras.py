"""Which optional part of the package brings which library, and the line that a user sees without it."""

from types import MappingProxyType
from typing import Final

# library, as it is imported: the extra that installs it (setup.cfg, options.extras_require)
EXTRA_OF: Final = MappingProxyType(
    {
        "ray": "train",
        "deepspeed": "train",
        "pyarrow": "train",
        "tensorboard": "train",
        "matplotlib": "report",
        "s3fs": "cloud",
        "gcsfs": "cloud",
        "adlfs": "cloud",
        "open_clip": "clip",
        "rs_fusion_datasets": "public",
        "pyogrio": "vectors",
    }
)


def missing_extra(error: ImportError) -> str | None:
    """One line that names the library and the command that installs it; None where no extra brings the library."""
    library = (error.name or "").partition(".")[0]
    if library not in EXTRA_OF:
        return None
    return f"this needs the library {library}: pip install 'diffclip-dist[{EXTRA_OF[library]}]'"
