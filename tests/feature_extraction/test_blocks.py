"""Features of a scene, block by block: those of the whole scene, by any encoder or none."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_study import HEIGHT, MODEL, WIDTH

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.bands_only import BandsOnly, FeatureEncoder
from diffclip_dist.feature_extraction.blocks import view_blocks
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, ListedFeatures, extract_features
from diffclip_dist.feature_extraction.feature_config import FeatureConfig
from diffclip_dist.feature_extraction.scene_view import view_scene
from diffclip_dist.model.saved_encoder import new_encoder
from shards.archive.archive import Archive

CONFIG = FeatureConfig(statistics_windows=20, smoothing=1)


@pytest.fixture(scope="module", params=["encoder", "bands"])
def encoder(archive: Archive, request: pytest.FixtureRequest) -> FeatureEncoder:
    schemas = [ModalitySchema.of(modality) for modality in archive.scene("town").modalities]
    return new_encoder(MODEL, schemas, seed=1).eval() if request.param == "encoder" else BandsOnly(schemas)


@pytest.mark.parametrize(("stride", "side"), [(1, 19), (3, 21), (3, 26), (4, 33)])
def test_a_blocks_features_are_the_whole_scenes(
    archive: Archive, encoder: FeatureEncoder, stride: int, side: int
) -> None:
    config = replace(CONFIG, stride=stride)
    scene = archive.read_scene("town")
    modalities = scene.record.modalities
    view = view_scene(scene, modalities, encoder, config)
    extractor = FeatureExtractor.fit(encoder, view, view.present, config)
    whole = extract_features(extractor, encoder, view, view.present, config)
    parts = []
    for block in view_blocks(archive["town"], modalities, encoder, config, 1, 4 * side**2):
        part = extract_features(extractor, encoder, block.view, block.wanted, config)
        parts.append(part.moved(block.rows.start - block.core[0].start, block.cols.start - block.core[1].start))
    assert len(parts) > 2
    found = ListedFeatures.joined(parts)
    assert np.array_equal(found.rows, whole.rows)
    assert np.array_equal(found.cols, whole.cols)
    torch.testing.assert_close(found.values_SPK, whole.values_SPK, rtol=1e-4, atol=1e-4)


def test_a_part_of_a_scene_may_begin_anywhere(archive: Archive, encoder: FeatureEncoder) -> None:
    config = replace(CONFIG, stride=4)
    modalities = archive.scene("town").modalities
    view = view_scene(archive.read_scene("town"), modalities, encoder, config)
    extractor = FeatureExtractor.fit(encoder, view, view.present, config)
    whole = extract_features(extractor, encoder, view, view.present, config)
    rows, cols = slice(7, 31), slice(13, WIDTH)
    seen = np.zeros((HEIGHT, WIDTH), int)
    for block in view_blocks(archive["town"], modalities, encoder, config, 1, 4 * 30**2, rows, cols):
        part = extract_features(extractor, encoder, block.view, block.wanted, config)
        part = part.moved(block.rows.start - block.core[0].start, block.cols.start - block.core[1].start)
        torch.testing.assert_close(part.values_SPK, whole.at(part.rows, part.cols), rtol=1e-4, atol=1e-4)
        seen[part.rows, part.cols] += 1
    assert (seen[rows, cols] == 1).all()
    assert seen.sum() == seen[rows, cols].size


def test_a_part_of_a_scene_in_memory_is_that_part_of_the_archive(archive: Archive) -> None:
    stored, held = archive["town"], archive.read_scene("town")
    for rows, cols in ((slice(0, HEIGHT), slice(0, WIDTH)), (slice(3, 4), slice(10, 17)), (slice(10, 37), slice(2, 3))):
        one, other = stored.read(("lidar",), rows, cols), held.read(("lidar",), rows, cols)
        assert set(one.values) == set(other.values) == {"lidar"}
        assert np.array_equal(one.values["lidar"], other.values["lidar"], equal_nan=True)
        assert np.array_equal(one.valid["lidar"], other.valid["lidar"])
        assert one.labels is not None
        assert other.labels is not None
        assert np.array_equal(one.labels, other.labels)
