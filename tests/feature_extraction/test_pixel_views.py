"""Windows that pixels are seen in: turned, mirrored and shifted with all modalities together, and read in any parts."""

import numpy as np
import pytest
import torch
from small_study import HEIGHT, MODEL, WIDTH

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.reading import read_pixels, read_view_in_batches
from diffclip_dist.feature_extraction.scene_view import SceneView, view_scene
from diffclip_dist.feature_extraction.views import Grid, plain_view, square_symmetries, training_view
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.saved_encoder import new_encoder
from shards.archive.archive import Archive

CONFIG = FewshotConfig(readout="pixel", stride=3, window_batch=7)
ROWS, COLS = (a.ravel() for a in np.mgrid[0:HEIGHT:5, 0:WIDTH:5])


@pytest.fixture(scope="module")
def model(archive: Archive) -> MultimodalEncoder:
    schemas = [ModalitySchema.of(modality) for modality in archive.scene("town").modalities]
    return new_encoder(MODEL, schemas, seed=1)


@pytest.fixture(scope="module")
def scene(archive: Archive, model: MultimodalEncoder) -> SceneView:
    read = archive.read_scene("town")
    return view_scene(read, read.record.modalities, model, CONFIG)


def own_values(scene: SceneView, name: str) -> torch.Tensor:
    """Each pixel's standardised values, cut without any view."""
    windows, _ = scene.windows.gather(ROWS, COLS)
    return windows[name][:, MODEL.tokens // 2]


def test_there_are_eight_symmetries_of_a_square() -> None:
    moves_GN = square_symmetries(3)
    assert len({tuple(move.tolist()) for move in moves_GN}) == 8
    assert torch.equal(moves_GN.sort(dim=1).values, torch.arange(9).expand(8, -1))
    # neighbours stay neighbours: the centre stays, and the middle of an edge stays the middle of an edge
    assert set(moves_GN[:, 4].tolist()) == {4}
    assert {int(token) for token in moves_GN[:, [1, 3, 5, 7]].flatten()} == {1, 3, 5, 7}


@pytest.mark.parametrize("number", range(6))
def test_a_view_holds_its_pixel_at_its_token_in_every_modality(scene: SceneView, number: int) -> None:
    if number == 0:
        view = plain_view(scene.windows, scene.grid, ROWS, COLS)
    else:
        view = training_view(scene.windows, scene.grid, ROWS, COLS, (0, number), dropout=0.0)
    places = torch.arange(len(ROWS))
    for name in ("hsi", "lidar"):
        assert torch.equal(view.windows[name][places, view.tokens_P], own_values(scene, name))
    if number > 0:
        assert len(set(view.tokens_P.tolist())) == 9, "the pixel lies anywhere up to half a stride off the centre"


def test_views_depend_on_the_pixel_and_not_on_its_company(scene: SceneView) -> None:
    together = training_view(scene.windows, scene.grid, ROWS, COLS, (3, 1), dropout=0.5)
    alone = training_view(scene.windows, scene.grid, ROWS[9:10], COLS[9:10], (3, 1), dropout=0.5)
    assert torch.equal(together.windows["hsi"][9], alone.windows["hsi"][0])
    assert together.tokens_P[9] == alone.tokens_P[0]


def test_dropout_hides_one_modality_and_never_all(scene: SceneView) -> None:
    plain = training_view(scene.windows, scene.grid, ROWS, COLS, (0, 1), dropout=0.0)
    view = training_view(scene.windows, scene.grid, ROWS, COLS, (0, 1), dropout=0.9)
    hidden = {name: ~view.valid[name].any(dim=1) & plain.valid[name].any(dim=1) for name in view.valid}
    assert hidden["hsi"].any()
    assert hidden["lidar"].any()
    assert not (hidden["hsi"] & hidden["lidar"]).any()
    assert not view.windows["hsi"][hidden["hsi"]].any()


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
def test_every_wanted_pixel_is_read_once_as_from_its_own_window(
    scene: SceneView, model: MultimodalEncoder, stride: int
) -> None:
    grid = Grid(HEIGHT, WIDTH, MODEL.window, stride)
    wanted = np.zeros((HEIGHT, WIDTH), bool)
    wanted[ROWS, COLS] = True
    parts = list(read_pixels(model, scene.windows, grid, wanted, CONFIG))
    read = {
        (row, col): values
        for part in parts
        for row, col, values in zip(
            part.rows.tolist(), part.cols.tolist(), part.features.values_PMF.unbind(), strict=True
        )
    }
    assert sum(len(part.rows) for part in parts) == len(read) == len(ROWS)
    view = plain_view(scene.windows, grid, ROWS, COLS)
    expected = read_view_in_batches(model, view, CONFIG).values_PMF
    for place, (row, col) in enumerate(zip(ROWS.tolist(), COLS.tolist(), strict=True)):
        assert torch.allclose(read[row, col], expected[place], atol=1e-5)


def test_a_modality_without_data_at_the_pixel_is_absent(scene: SceneView, model: MultimodalEncoder) -> None:
    in_the_hole, outside = np.array([35, 5]), np.array([10, 10])
    view = plain_view(scene.windows, scene.grid, in_the_hole, outside)
    features = read_view_in_batches(model, view, CONFIG)
    assert features.present_PM.tolist() == [[True, False], [True, True]]
    assert not features.values_PMF[0, 1].any()
