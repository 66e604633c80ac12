"""What is learned from shots: the same for the same seed, right where classes are apart, and robust at the edges."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_study import MODEL

from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.feature_extraction.feature_config import Readout
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics, PixelFeatures
from diffclip_dist.feature_extraction.scene_sample import SceneSample
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene, view_scene
from diffclip_dist.fewshot.class_text import ClassText, build_text
from diffclip_dist.fewshot.cosine_fitting import feature_statistics, fit_cosine_classifier
from diffclip_dist.fewshot.cosine_head import CosineHead
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.fitted_classifier import FittedClassifier
from diffclip_dist.fewshot.prediction import classify
from diffclip_dist.fewshot.support import Support
from diffclip_dist.model.encoder import MultimodalEncoder
from diffclip_dist.model.saved_encoder import load_encoder, new_encoder
from diffclip_dist.study.experiment import Outcome, Task, run_task
from shards.archive.archive import Archive, Scene
from shards.errors import BadInput

QUICKLY = FewshotConfig(head="cosine", steps=30, views=3, statistics_windows=20)


@pytest.fixture
def scene(archive: Archive) -> Scene:
    return archive.read_scene("town")


@pytest.fixture
def model(scene: Scene, encoder: Path) -> MultimodalEncoder:
    return encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))


def run(scene: Scene, model: MultimodalEncoder, config: FewshotConfig = QUICKLY, seeds: int = 2) -> Outcome:
    return run_task(scene, model, Task((1, 3), seeds, "random", "scratch"), config)


@pytest.mark.parametrize("readout", ["class", "pixel", "both"])
def test_classes_that_are_apart_are_told_apart(scene: Scene, model: MultimodalEncoder, readout: Readout) -> None:
    config = FewshotConfig(head="cosine", readout=readout, stride=1, steps=60, views=3)
    outcome = run(scene, model, config)
    assert np.mean([run.scores.oa for run in outcome.of_shots(3)]) > 80


def test_the_same_seed_gives_the_same_result(scene: Scene, model: MultimodalEncoder) -> None:
    one, other = run(scene, model), run(scene, model)
    for first, second in zip(one.runs, other.runs, strict=True):
        assert torch.equal(first.fitted.head.projection_MFE, second.fitted.head.projection_MFE)
        assert np.array_equal(first.scores.confusion, second.scores.confusion)
    assert np.array_equal(one.maps[3], other.maps[3])


def test_other_shots_and_seeds_change_no_run(scene: Scene, model: MultimodalEncoder) -> None:
    among_others = run(scene, model).of_shots(3)[1]
    fewer = run_task(scene, model, Task((3,), 2, "random", "scratch"), QUICKLY).of_shots(3)[1]
    assert torch.equal(among_others.fitted.text_CE, fewer.fitted.text_CE)


def test_figures_are_read_off_the_map(scene: Scene, model: MultimodalEncoder) -> None:
    outcome = run(scene, model)
    first = outcome.of_shots(3)[0]
    query = first.episode.query
    agreed = outcome.maps[3][query.rows, query.cols] == query.class_ids
    assert 100 * agreed.mean() == pytest.approx(first.scores.oa)
    assert set(np.unique(outcome.maps[3])) <= {2, 5, 7}


def test_the_given_encoder_stays_as_it_is_and_a_tuned_one_learns(scene: Scene, model: MultimodalEncoder) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    frozen = run(scene, model).runs[0].fitted.encoder
    assert frozen is model
    tuned = run(
        scene, model, FewshotConfig(head="cosine", steps=6, views=2, statistics_windows=20, tune_encoder=True), seeds=1
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    moved = tuned.runs[0].fitted.encoder
    still = [name for name, p in moved.named_parameters() if torch.equal(before[name], p)]
    assert not [name for name in still if "class_token" not in name and "timestep" not in name]


def test_one_pixel_is_enough_to_learn_from(scene: Scene, model: MultimodalEncoder) -> None:
    view = view_scene(scene, scene.record.modalities, model, QUICKLY)
    text = build_text("scratch", [ClassText("roof")], torch.Generator().manual_seed(0))
    support = Support(np.array([4]), np.array([4]), np.array([0]))
    statistics = feature_statistics(model, SceneSample(view, view.present), QUICKLY)
    fitted = fit_cosine_classifier(model, view, support, text, statistics, QUICKLY, seed=0)
    wanted = np.zeros(view.present.shape, bool)
    wanted[7, 9] = True
    found = classify([fitted], view, wanted, QUICKLY)[0]
    assert found[7, 9] == 0
    assert np.count_nonzero(found >= 0) == 1


def test_the_order_of_the_classes_does_not_matter(scene: Scene, model: MultimodalEncoder) -> None:
    view = view_scene(scene, scene.record.modalities, model, QUICKLY)
    statistics = feature_statistics(model, SceneSample(view, view.present), QUICKLY)
    rows, cols, targets = np.array([4, 5, 7, 8]), np.array([1, 6, 7, 12]), np.array([0, 1, 1, 2])

    def fitted(order: list[int]) -> FittedClassifier:
        names = [("roof", "tree", "water")[place] for place in order]
        text = build_text("scratch", [ClassText(name) for name in names], torch.Generator().manual_seed(0))
        support = Support(rows, cols, np.argsort(order)[targets])
        return fit_cosine_classifier(model, view, support, text, statistics, QUICKLY, seed=0)

    order = [2, 0, 1]
    assert torch.allclose(fitted(order).text_CE, fitted([0, 1, 2]).text_CE[order], atol=1e-3)


def head_of(modalities: int = 2) -> CosineHead:
    statistics = FeatureStatistics(torch.zeros(modalities, 8), torch.ones(modalities, 8))
    head = CosineHead(statistics, 4)
    torch.nn.init.normal_(head.projection_MFE, generator=torch.Generator().manual_seed(0))
    return head


def test_learning_starts_from_the_nearest_class_mean() -> None:
    draw = torch.Generator().manual_seed(3)
    support = PixelFeatures(torch.randn(9, 2, 8, generator=draw), torch.ones(9, 2, dtype=torch.bool))
    targets_P = torch.tensor([0, 0, 0, 1, 1, 3, 3, 3, 3])  # no pixel of class 2
    queries = PixelFeatures(torch.randn(200, 2, 8, generator=draw), torch.ones(200, 2, dtype=torch.bool))
    head = CosineHead(FeatureStatistics(torch.zeros(2, 8), torch.ones(2, 8)), 12)
    text_CE = torch.nn.functional.normalize(1 + torch.randn(4, 12, generator=draw), dim=1)
    head.start_from(support, targets_P, text_CE)
    unit = torch.nn.functional.normalize
    known, asked = unit(support.values_PMF.flatten(1), dim=1), unit(queries.values_PMF.flatten(1), dim=1)
    means = torch.stack([known[targets_P == index].mean(dim=0) for index in (0, 1, 3)])
    nearest = torch.tensor([0, 1, 3])[torch.cdist(asked, means).argmin(dim=1)]
    assert torch.equal(head(queries, text_CE).argmax(dim=1), nearest)
    assert len(set(nearest.tolist())) == 3


def test_a_pixel_is_classified_alone_as_in_company() -> None:
    values_PMF = torch.randn(5, 2, 8, generator=torch.Generator().manual_seed(1))
    present_PM = torch.ones(5, 2, dtype=torch.bool)
    text_CE = torch.eye(3, 4)
    together = head_of()(PixelFeatures(values_PMF, present_PM), text_CE)
    alone = head_of()(PixelFeatures(values_PMF[2:3], present_PM[2:3]), text_CE)
    assert torch.allclose(together[2:3], alone, atol=1e-5)


def test_scaled_cosines_start_at_clips_temperature() -> None:
    values_PMF = torch.randn(50, 2, 8, generator=torch.Generator().manual_seed(1))
    features = PixelFeatures(values_PMF, torch.ones(50, 2, dtype=torch.bool))
    logits_PC = head_of()(features, torch.nn.functional.normalize(torch.randn(9, 4), dim=1))
    assert logits_PC.abs().max() <= 1 / 0.07 + 1e-4
    assert head_of().log_scale.exp().item() == pytest.approx(14.2857, rel=1e-4)


def test_a_missing_modality_leaves_the_decision_to_the_other() -> None:
    values_PMF = torch.randn(1, 2, 8, generator=torch.Generator().manual_seed(2))
    other_PMF = values_PMF.clone()
    other_PMF[:, 1] = 100.0
    absent = torch.tensor([[True, False]])
    text_CE = torch.eye(3, 4)
    one, two = (head_of()(PixelFeatures(values, absent), text_CE) for values in (values_PMF, other_PMF))
    assert torch.equal(one, two)
    nothing = head_of()(PixelFeatures(values_PMF, torch.tensor([[False, False]])), text_CE)
    assert torch.isfinite(nothing).all()


def test_statistics_leave_missing_pixels_out() -> None:
    values_PMF = torch.tensor([[[1.0]], [[3.0]], [[50.0]]])
    found = FeatureStatistics.of(PixelFeatures(values_PMF, torch.tensor([[True], [True], [False]])))
    assert (float(found.mean_MF), float(found.deviation_MF)) == (2.0, 1.0)


def test_an_encoder_of_other_bands_is_refused_and_one_of_more_sensors_is_cut_down(scene: Scene) -> None:
    own = [ModalitySchema.of(modality) for modality in scene.record.modalities]
    more = new_encoder(MODEL, [ModalitySchema("sar", 2), *reversed(own), ModalitySchema("hsi", 99)], seed=0)
    part = encoder_for_scene(more, scene.record, "more")
    assert [schema.name for schema in part.modalities] == ["hsi", "lidar"]
    window = {"hsi": torch.randn(1, MODEL.tokens, 6), "lidar": torch.randn(1, MODEL.tokens, 1)}
    valid = {name: torch.ones(1, MODEL.tokens, dtype=torch.bool) for name in window}
    whole = new_encoder(MODEL, own, seed=0)
    whole.load_state_dict({name: more.state_dict()[name] for name in whole.state_dict()})
    assert torch.allclose(part(window, valid).tokens_BMTD, whole(window, valid).tokens_BMTD, atol=1e-5)
    with pytest.raises(BadInput, match="scene town: modality hsi: has 6 bands, and other expects 99"):
        encoder_for_scene(new_encoder(MODEL, [ModalitySchema("hsi", 99)], seed=0), scene.record, "other")
    with pytest.raises(BadInput, match="none is shared"):
        encoder_for_scene(new_encoder(MODEL, [ModalitySchema("sar", 2)], seed=0), scene.record, "other")


@pytest.mark.parametrize(
    "setting", [{"stride": 0}, {"views": 0}, {"readout": "mean"}, {"modality_dropout": 1.0}, {"learning_rate": 0.0}]
)
def test_settings_out_of_range_are_named(setting: dict[str, object]) -> None:
    with pytest.raises(BadInput, match=f"fewshot.{next(iter(setting))}"):
        FewshotConfig(**setting)  # type: ignore[arg-type]
