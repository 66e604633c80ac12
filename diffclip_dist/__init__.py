"""Distributed mask-diffusion pretraining for multimodal scenes, and few-shot land-cover mapping.

What each name needs is imported when it is first used: `pretrain` alone needs Ray and DeepSpeed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffclip_dist.api.archives import build_archive, open_archive
    from diffclip_dist.api.encoders import load_encoder
    from diffclip_dist.api.few_shot_classifier import FewShotClassifier
    from diffclip_dist.api.maps import predict_map
    from diffclip_dist.api.pretraining import pretrain
    from diffclip_dist.api.scene_features import features
    from diffclip_dist.data.geo_dataset import ArchiveGeoDataset
    from diffclip_dist.data.geo_samplers import GridGeoSampler, RandomGeoSampler

__version__ = "0.1.0"
__all__ = [
    "ArchiveGeoDataset",
    "FewShotClassifier",
    "GridGeoSampler",
    "RandomGeoSampler",
    "build_archive",
    "features",
    "load_encoder",
    "open_archive",
    "predict_map",
    "pretrain",
]

_MODULES = {
    "ArchiveGeoDataset": "data.geo_dataset",
    "FewShotClassifier": "api.few_shot_classifier",
    "GridGeoSampler": "data.geo_samplers",
    "RandomGeoSampler": "data.geo_samplers",
    "build_archive": "api.archives",
    "features": "api.scene_features",
    "load_encoder": "api.encoders",
    "open_archive": "api.archives",
    "predict_map": "api.maps",
    "pretrain": "api.pretraining",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
