"""Features of a scene's pixels for Python users."""

import numpy as np
import torch

from diffclip_dist.api.encoders import EncoderLike, encoder_for
from diffclip_dist.api.scenes import Raster, SceneLike, like_scene, readable_scene
from diffclip_dist.feature_extraction.band_match import pick_bands
from diffclip_dist.feature_extraction.blocks import all_pixels
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, extract_features
from diffclip_dist.feature_extraction.feature_config import FeatureConfig, Readout
from diffclip_dist.feature_extraction.scene_reader import SceneReader


def features(
    scene: SceneLike,
    encoder: EncoderLike = None,
    *,
    readout: Readout = FeatureConfig.readout,
    stride: int = FeatureConfig.stride,
    smoothing: int = FeatureConfig.smoothing,
    device: str | torch.device = "cpu",
    map_bands: bool = False,
    trust_units: bool = False,
) -> Raster:
    """Features of each pixel of a scene, learned without a label.

    They are the encoder's features, the bands, and the bands in the scene's own noise-whitened metric, joined, turned
    onto at most 64 principal axes, the one of most variance first, and averaged over neighbours that look alike: the
    first feature set that `FewShotClassifier` sees. Any estimator of scikit-learn takes them.

    Args:
        scene: a scene of an archive (``archive["potsdam"]``), an xarray Dataset or DataArray, or a dict of NumPy arrays
            (row, col) or (row, col, band) by modality.
        encoder: from `load_encoder`, or its folder; ``"none"`` for random weights; None for bands alone.
        readout: ``pixel``, ``class`` or ``both``: which tokens of the encoder.
        stride: pixels between windows, at least 1.
        smoothing: rounds of averaging over similar neighbours, 0 or more.
        device: where the encoder computes.
        map_bands: where the encoder knows other bands, take the nearest by wavelength.
        trust_units: take a scene whose values seem to come in other units than the encoder's scenes.

    Returns:
        float32 (row, col, feature), NaN where no modality has data: a DataArray with the scene's coordinates and CRS
        for an xarray scene, else a NumPy array.

    Raises:
        BadInput: the scene or the encoder cannot be used, or they do not fit each other.

    Example:
        >>> values = dc.features(dc.open_archive("archive")["potsdam"], encoder="run/encoder")
    """
    config = FeatureConfig(readout=readout, stride=stride, smoothing=smoothing)
    readable = readable_scene(scene)
    named = encoder_for(encoder, readable.record, map_bands=map_bands, trust_units=trust_units)
    module = named.encoder.to(device)
    readable = pick_bands(readable, named.matches)
    record = readable.record
    reader = SceneReader.open(readable, module, config)
    sample = reader.sample(reader.survey.names)
    extractor = FeatureExtractor.fit(module, sample.view, sample.pixels, config)
    found = np.full((record.height, record.width, extractor.axes_AJK.shape[2]), np.nan, dtype=np.float32)
    for block in reader.blocks(all_pixels):
        part = extract_features(extractor, module, block.view, block.wanted, config)
        down, right = block.origin
        found[part.rows + down, part.cols + right] = part.values_SPK[0].cpu().numpy()
    return like_scene(found, scene, "features", ("feature", list(range(found.shape[2]))))
