"""Which optional part of the package brings which library, and the line that a user sees without it."""

import importlib.util
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
        "open_clip": "clip",
        "rs_fusion_datasets": "public",
        "pyogrio": "vectors",
        "shapely": "vectors",
        "skimage": "benchmark",
        "sklearn": "benchmark",
        "shtab": "completion",
        "mlflow": "mlflow",
        "wandb": "wandb",
        "onnxscript": "onnx",
    }
)


def missing_extra(error: ImportError) -> str | None:
    """One line that names the library and the command that installs it; None where no extra brings the library."""
    library = (error.name or "").partition(".")[0]
    return install_line(library) if library in EXTRA_OF else None


def install_line(library: str) -> str:
    """One line that names a library of `EXTRA_OF` and the command that installs it."""
    return f"this needs the library {library}: pip install 'diffclip-dist[{EXTRA_OF[library]}]'"


def installed(library: str) -> bool:
    """Whether a library is there, without importing it."""
    return importlib.util.find_spec(library) is not None
