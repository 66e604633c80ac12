"""The kernel head: right where classes are apart, the same on every run, blind to query labels, whole on disk."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy.ndimage import gaussian_filter
from small_study import WIDTH, Study, build, command, write_small_scene
from torch import Tensor

from diffclip_dist.feature_extraction.band_metric import BandMetric, fit_band_metric
from diffclip_dist.feature_extraction.extractor import FeatureExtractor, extract_features
from diffclip_dist.feature_extraction.pixel_features import FeatureStatistics
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene, view_scene
from diffclip_dist.fewshot.classifier import load_classifier
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.fewshot.kernel_head import KernelHead
from diffclip_dist.mapping.predict import predict_map
from diffclip_dist.model.saved_encoder import load_encoder
from diffclip_dist.study.experiment import Task, run_task
from shards.archive.archive import Archive
from shards.errors import BadInput

KERNEL = FewshotConfig(head="kernel", statistics_windows=20)
TASK = Task((1, 3), 2, "random", "scratch")


def no_extractor() -> FeatureExtractor:
    """For heads over descriptions that are given."""
    nothing = torch.zeros(1, 1)
    return FeatureExtractor(FeatureStatistics(nothing, nothing), BandMetric(nothing, nothing), *[nothing] * 3)


def test_classes_that_are_apart_are_told_apart_the_same_on_every_run(archive: Archive, encoder: Path) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    outcome, again = run_task(scene, model, TASK, KERNEL), run_task(scene, model, TASK, KERNEL)
    assert np.mean([run.scores.oa for run in outcome.of_shots(3)]) > 80
    assert np.array_equal(outcome.maps[3], again.maps[3])


def test_labels_of_query_pixels_change_no_prediction(archive: Archive, encoder: Path) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    task = Task((3,), 1, "official", "scratch")
    assert scene.labels is not None
    train = np.where(np.arange(len(scene.labels))[:, None] < 20, scene.labels, 0).astype(scene.labels.dtype)
    test = np.where(train == 0, scene.labels, 0).astype(scene.labels.dtype)
    shuffled = test.copy()
    shuffled[test > 0] = np.random.default_rng(0).permutation(test[test > 0])
    maps = []
    for query in (test, shuffled):
        labels = np.where(train > 0, train, query).astype(train.dtype)
        maps.append(run_task(replace(scene, labels=labels, split=(train, query)), model, task, KERNEL).maps[3])
    assert np.array_equal(*maps)


def test_components_come_with_most_signal_first(archive: Archive, encoder: Path) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    view = view_scene(scene, scene.record.modalities, model, KERNEL)
    rows, cols = np.nonzero(view.present[:, :-1])
    metric = fit_band_metric(view.windows, view.present)
    own_PK, beside_PK = (metric.components(view.windows.bands_at(rows, cols + step)) for step in (0, 1))
    signal_K, noise_K = own_PK.var(dim=0), (own_PK - beside_PK).var(dim=0)
    assert bool((signal_K[:-1] >= signal_K[1:] - 1e-4).all())
    assert (signal_K / noise_K)[0] > (signal_K / noise_K)[-1]


def test_a_map_of_the_kept_classifier_is_the_studys_own_map(archive: Archive, encoder: Path, tmp_path: Path) -> None:
    study, out = tmp_path / "study", tmp_path / "town.tif"
    scene = ("--archive", archive.location, "--scene", "town")
    asked = ("--encoder", encoder, "--shots", 2, "--seeds", 1, "--head", "kernel", "--out", study)
    ended = command("fewshot.py", *scene, *asked)
    assert ended.status == 0, ended.errors
    ended = command("predict.py", *scene, "--model", study / "model-2shot", "--out", out)
    assert ended.status == 0, ended.errors
    with rasterio.open(out) as mine, rasterio.open(study / "maps" / "2shot.tif") as theirs:
        mapped = mine.read(1)
        assert np.array_equal(mapped, theirs.read(1))
    in_blocks = predict_map(load_classifier(study / "model-2shot"), archive["town"], block_bytes=6_000_000)
    assert np.array_equal(in_blocks, mapped)


def test_a_scene_without_one_of_the_modalities_is_mapped_all_the_same(study: Study, tmp_path: Path) -> None:
    scene = write_small_scene(tmp_path / "bare", "bare", labels=False)
    content = yaml.safe_load((scene / "scene.yaml").read_text())
    del content["modalities"]["lidar"]
    (scene / "scene.yaml").write_text(yaml.safe_dump(content))
    bare = build([str(scene)], tmp_path / "built")["bare"]
    class_map = predict_map(load_classifier(study.folder / "model-4shot"), bare)
    truth = np.array([2, 5, 7])[np.arange(WIDTH) // 5 % 3]
    assert (class_map == truth).mean() > 0.7


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"foreign": torch.zeros(1)}, r"(?s)model\.safetensors: not a classifier's weights: .*foreign"),
        ({"support_SQK": torch.zeros(1, 3, 64)}, r"model\.safetensors: weights do not fit config\.json"),
    ],
)
def test_a_kernel_classifier_with_foreign_tensors_is_refused(
    archive: Archive, encoder: Path, tmp_path: Path, changes: dict[str, Tensor], told: str
) -> None:
    scene = ("--archive", archive.location, "--scene", "town")
    ended = command("fewshot.py", *scene, "--encoder", encoder, "--shots", 1, "--seeds", 1, "--out", tmp_path / "study")
    assert ended.status == 0, ended.errors
    weights = tmp_path / "study" / "model-1shot" / "model.safetensors"
    save_file({**load_file(weights), **changes}, weights)
    config = weights.with_name("config.json")
    content = json.loads(config.read_text()) | {"weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    config.write_text(json.dumps(content))
    with pytest.raises(BadInput, match=told):
        load_classifier(weights.parent)


def test_smoothing_takes_noise_off_and_leaves_edges(archive: Archive, encoder: Path) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    view = view_scene(scene, scene.record.modalities, model, KERNEL)
    extractor = FeatureExtractor.fit(model, view, view.present, KERNEL)
    cover = np.arange(view.present.shape[1]) // 5 % 3  # stripes of three covers, five pixels wide
    upper = np.broadcast_to(np.arange(len(view.present))[:, None] < 28, view.present.shape)
    scatter, apart = {}, {}
    for rounds in (0, 3):
        config = replace(KERNEL, smoothing=rounds)
        found = extract_features(extractor, model, view, view.present, config).among(upper)
        values = found.values_SPK[0].view(28, len(cover), -1).numpy()
        means = np.stack([values[:, cover == one].mean(axis=(0, 1)) for one in range(3)])
        scatter[rounds] = np.mean(np.square(values - means[cover]).sum(axis=2))
        apart[rounds] = np.square(means[0] - means[1]).sum()
    assert scatter[3] < 0.6 * scatter[0]
    assert apart[3] > 0.9 * apart[0]


@pytest.mark.parametrize("varied", ["from pixel to pixel", "from place to place"])
def test_noise_is_what_does_not_grow_with_distance(archive: Archive, encoder: Path, varied: str) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    random = np.random.default_rng(0)
    values = {}
    for name, known in scene.values.items():
        drawn = random.normal(size=known.shape)
        if varied == "from place to place":
            drawn = gaussian_filter(drawn, (2.0, 2.0, 0.0))
        values[name] = (5.0 + drawn / drawn.std()).astype(np.float32)
    made = replace(scene, values=values)
    view = view_scene(made, made.record.modalities, model, KERNEL)
    extractor = FeatureExtractor.fit(model, view, view.present, KERNEL)
    noise, within_one_thing, *other_noise = extractor.bilateral_bandwidth_S.tolist()
    assert [one > 0.0 for one in (noise, *other_noise)] == [varied == "from pixel to pixel"] * 3
    assert within_one_thing > noise


def weight_of_sets(head: KernelHead) -> list[float]:
    """The weight of each feature set, summing to 1."""
    of_sets: list[float] = head.weight_G.view(len(head.variance_S), -1).sum(dim=1).tolist()
    return of_sets


def test_the_shots_tell_which_description_serves() -> None:
    # two classes of ten shots that the first description knows nothing of, and the second knows all of
    random = torch.Generator().manual_seed(0)
    blind_PK = torch.randn(200, 2, generator=random)
    truth_P = torch.arange(200) % 2
    telling_PK = truth_P[:, None] * torch.tensor([3.0, 0.0]) + 0.1 * torch.randn(200, 2, generator=random)
    scene_SPK = torch.stack([blind_PK, telling_PK])
    text_CE = torch.eye(2, 4)
    weights = {}
    for shots in (1, 10):
        support = slice(0, 2 * shots)
        head = KernelHead.fit(no_extractor(), scene_SPK, scene_SPK[:, support], truth_P[support], text_CE)
        weights[shots] = weight_of_sets(head)
        if shots == 10:
            right = head(scene_SPK, text_CE).argmax(dim=1) == truth_P
            assert right.float().mean() > 0.95
    assert weights[1] == pytest.approx([0.5, 0.5])  # nothing is held out of a single shot, and neither is confirmed
    assert weights[10][1] > 0.95


def test_a_description_that_the_others_contradict_counts_least_where_no_shot_can_be_held_out() -> None:
    # four classes of one shot; of three descriptions, two know them, each with errors of its own
    random = torch.Generator().manual_seed(0)
    truth_P = torch.arange(400) % 4
    telling_SPK = 3.0 * torch.eye(4)[truth_P] + 0.8 * torch.randn(2, 400, 4, generator=random)
    blind_SPK = torch.randn(1, 400, 4, generator=random)
    text_CE = torch.eye(4)
    for place in range(3):
        scene_SPK = torch.cat([telling_SPK[:place], blind_SPK, telling_SPK[place:]])
        head = KernelHead.fit(no_extractor(), scene_SPK, scene_SPK[:, :4], truth_P[:4], text_CE)
        assert weight_of_sets(head)[place] < 0.1


def test_the_shots_tell_how_far_a_class_reaches() -> None:
    # the fields of a board want a narrow kernel, the two sides of a line a wider one
    places_P2 = 8.0 * torch.rand(400, 2, generator=torch.Generator().manual_seed(0))
    board_P = (places_P2 / 2).floor().sum(dim=1).long() % 2
    sides_P = (places_P2.sum(dim=1) > 8.0).long()
    narrow = []
    for truth_P, labelled in ((board_P, 400), (sides_P, 40)):
        support_SQK = places_P2[None, :labelled]
        head = KernelHead.fit(no_extractor(), places_P2[None], support_SQK, truth_P[:labelled], torch.eye(2, 4))
        narrow.append(float(head.weight_G[0]))
    assert narrow[0] > 0.95
    assert narrow[1] < 0.3


def test_of_many_shots_some_of_every_class_weigh_the_kernels_and_all_are_solved_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the last class has two shots; the second description alone tells the classes apart
    monkeypatch.setattr("diffclip_dist.fewshot.kernel_head.MOST_WEIGHED", 30)
    random = torch.Generator().manual_seed(0)
    targets_Q = torch.tensor([0, 1] * 49 + [2] * 2)
    blind_QK = torch.randn(100, 3, generator=random)
    telling_QK = 3.0 * torch.eye(3)[targets_Q] + 0.1 * torch.randn(100, 3, generator=random)
    support_SQK = torch.stack([blind_QK, telling_QK])
    text_CE = torch.eye(3, 5)
    head = KernelHead.fit(no_extractor(), support_SQK, support_SQK, targets_Q, text_CE)
    assert head.weight_G.view(2, -1).sum(dim=1)[1] > 0.95
    assert bool((head.dual_coef_GQE.abs().sum(dim=(0, 2)) > 0).all())
    held_out_Q = head.held_out_logits(targets_Q, text_CE).argmax(dim=1)
    assert held_out_Q.tolist() == targets_Q.tolist()


@pytest.mark.timeout(120, method="thread")  # a signal does not end what waits there
def test_many_shots_are_solved_for_on_several_threads() -> None:
    # a batch of factorisations never ended there
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        random = torch.Generator().manual_seed(0)
        truth_P = torch.arange(400) % 4
        scene_SPK = 0.1 * torch.randn(3, 400, 4, generator=random) + torch.eye(4)[truth_P]
        text_CE = torch.eye(4, 5)
        head = KernelHead.fit(no_extractor(), scene_SPK, scene_SPK, truth_P, text_CE)
    finally:
        torch.set_num_threads(threads)
    assert bool((head(scene_SPK, text_CE).argmax(dim=1) == truth_P).all())


def test_class_priors_are_estimated_without_labels() -> None:
    random = torch.Generator().manual_seed(0)
    many, few, support_QK = torch.randn(950, 2, generator=random), torch.randn(50, 2, generator=random), torch.eye(2)
    scene_PK = torch.cat([0.5 * many + support_QK[0], 0.5 * few + support_QK[1]])
    text_CE = torch.eye(2, 4)
    scene_SPK = scene_PK[None]
    equal = KernelHead.fit(no_extractor(), scene_SPK, support_QK[None], torch.tensor([0, 1]), text_CE)
    estimated = equal.adapted(scene_SPK, text_CE, class_priors=True, class_means=False)
    truth = torch.arange(1000) >= 950
    right = [int((head(scene_SPK, text_CE).argmax(dim=1) == truth).sum()) for head in (equal, estimated)]
    assert right[1] > right[0]


def test_class_means_are_estimated_without_labels() -> None:
    # two clouds side by side, whose labelled pixels lie aside of their means
    random = torch.Generator().manual_seed(0)
    truth_P = torch.arange(1000) % 2
    scene_PK = torch.randn(1000, 2, generator=random) * torch.tensor([0.5, 1.0])
    scene_PK[:, 0] += 2.0 * truth_P
    support_QK = torch.tensor([[0.0, 1.0], [2.0, -1.0]])
    text_CE = torch.eye(3, 4)  # the third class has no shots
    scene_SPK = scene_PK[None] + 5.0  # wherever the origin lies
    head = KernelHead.fit(no_extractor(), scene_SPK, support_QK[None] + 5.0, torch.tensor([0, 1]), text_CE)
    adapted = head.adapted(scene_SPK, text_CE, class_priors=False, class_means=True)
    found = [one(scene_SPK, text_CE).argmax(dim=1) for one in (head, adapted)]
    right = [int((classes_P == truth_P).sum()) for classes_P in found]
    assert right[0] < 900 < right[1]
    assert not any((classes_P == 2).any() for classes_P in found)


def test_nothing_is_estimated_from_scores_that_tell_no_class_from_another() -> None:
    # one value a pixel, which says nothing of its class
    random = torch.Generator().manual_seed(0)
    scene_SPK, text_CE = torch.randn(1, 1000, 1, generator=random), torch.eye(5)
    targets_Q = torch.arange(50) % 5
    head = KernelHead.fit(no_extractor(), scene_SPK, scene_SPK[:, :50], targets_Q, text_CE)
    adapted = head.adapted(scene_SPK, text_CE, class_priors=True, class_means=True)
    assert torch.equal(adapted(scene_SPK, text_CE), head(scene_SPK, text_CE))


def test_pixels_that_are_all_alike_have_no_class_means_to_tell_apart() -> None:
    alike_SPK, text_CE = torch.ones(1, 4, 2), torch.eye(2, 4)
    head = KernelHead.fit(no_extractor(), alike_SPK, alike_SPK[:, :2], torch.tensor([0, 1]), text_CE)
    adapted = head.adapted(alike_SPK, text_CE, class_priors=False, class_means=True)
    torch.testing.assert_close(adapted(alike_SPK, text_CE), head(alike_SPK, text_CE))


def test_blocks_keep_the_pixels_that_smoothing_looks_at_apart(archive: Archive, encoder: Path) -> None:
    scene = archive.read_scene("town")
    model = encoder_for_scene(load_encoder(encoder), scene.record, str(encoder))
    task = Task((1,), 2, "blocks", "scratch")
    for rounds, footprint in ((0, 7), (1, 11)):  # windows of 5 read in strides of 3, then two pixels more a side
        for run in run_task(scene, model, task, replace(KERNEL, smoothing=rounds)).runs:
            support, query = run.episode.support, run.episode.query
            away = np.maximum(abs(support.rows[:, None] - query.rows), abs(support.cols[:, None] - query.cols))
            assert away.min() >= footprint


def test_a_kernel_head_cannot_tune_the_encoder() -> None:
    with pytest.raises(BadInput, match=r"fewshot\.head"):
        FewshotConfig(head="kernel", tune_encoder=True)
