"""What stage 1 may see: no label, and the scenes of any sensor through one encoder."""

from pathlib import Path

import numpy as np
import pytest
import torch
from deepspeed import DeepSpeedEngine
from small_runs import SMALL_MODEL

from diffclip_dist.feature_extraction.reading import read_pixels
from diffclip_dist.feature_extraction.scene_view import encoder_for_scene, view_scene
from diffclip_dist.fewshot.fewshot_config import FewshotConfig
from diffclip_dist.model.saved_encoder import load_encoder, read_config
from diffclip_dist.train.backend.deepspeed_engine import end_engine, join_process_group, start_engine
from diffclip_dist.train.backend.sharded_state import whole_state
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.single_process import pretrain_single_process, world_of_one
from diffclip_dist.train.step import train_step
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.scene.array_scene import ArrayScene
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec

TILES = ArchiveSettings(tile_size=16, halo=5)


def test_labels_taken_out_of_an_archive_change_nothing_in_the_encoder(generated_archive: Path, tmp_path: Path) -> None:
    labelled = Archive.open(generated_archive)
    scene = labelled.read_scene("small")
    assert scene.labels is not None
    assert np.any(scene.labels > 0)
    values = {
        name: np.where(scene.valid[name][..., None], held.astype(np.float64), np.nan).astype(np.float32)
        for name, held in scene.values.items()
    }
    build_archive([ArrayScene("small", values)], tmp_path / "unlabelled", TILES)
    assert not Archive.open(tmp_path / "unlabelled").scene("small").classes
    # the same pixels once more with their labels, so that nothing but the labels differs
    with_labels = ArrayScene("small", values, classes=GeneratedScene(GeneratedSceneSpec()).classes, labels=scene.labels)
    build_archive([with_labels], tmp_path / "labelled", TILES)
    weights = []
    for kind in ("labelled", "unlabelled"):
        given = {
            "archive": str(tmp_path / kind), "run_dir": str(tmp_path / f"run-{kind}"), "global_batch": 24, "steps": 4,
        }  # fmt: skip
        encoder = pretrain_single_process(resolve_config(None, given, SMALL_MODEL))
        weights.append((encoder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


@pytest.mark.parametrize("stage", [0, 3])
def test_weights_of_an_absent_sensor_neither_decay_nor_drift(tmp_path: Path, stage: int) -> None:
    specs = [GeneratedSceneSpec("wide", 48, 48, 20), GeneratedSceneSpec("visible", 48, 48, 9, seed=7)]
    build_archive([GeneratedScene(spec) for spec in specs], tmp_path / "archive", TILES)
    given = {"archive": str(tmp_path / "archive"), "run_dir": str(tmp_path), "global_batch": 24, "zero_stage": stage}
    config = resolve_config(None, given, [*SMALL_MODEL, "optimiser.weight_decay=0.5"])
    device = torch.device("cpu")
    with world_of_one(device):
        join_process_group(device)
        context = TrainContext.of(open_plan(config), device)
        engine = start_engine(config, context.modalities, device, 1, context.sometimes_absent)
        seen: set[str] = set()
        for step, batch in enumerate(context.stream.batches(0, 40)):
            present = {schema.key for schema in batch.schemas}
            before = weights_of(engine)
            train_step(engine, batch, config, step)
            moved = {name for name, weight in weights_of(engine).items() if not torch.equal(weight, before[name])}
            absent = set(context.sometimes_absent) - present
            assert not {name for name in moved if absent & set(name.split("."))}
            assert {key for key in present if any(key in name.split(".") for name in moved)} == present
            seen |= present
        assert len(seen) > len(present), "one sensor alone was drawn, and the test shows nothing"
        end_engine(engine)


def weights_of(engine: DeepSpeedEngine) -> dict[str, torch.Tensor]:
    return {name: whole_state(engine, parameter).clone() for name, parameter in engine.module.named_parameters()}


def test_one_encoder_learns_from_several_sensors_and_reads_another(tmp_path: Path) -> None:
    specs = [
        GeneratedSceneSpec("wide", 48, 48, 20, 400.0, 2400.0),
        GeneratedSceneSpec("visible", 48, 48, 9, 420.0, 900.0, seed=7),
    ]
    unseen = GeneratedSceneSpec("unseen", 32, 32, 14, 500.0, 1700.0, seed=8)
    build_archive([GeneratedScene(spec) for spec in specs], tmp_path / "archive", TILES)
    build_archive([GeneratedScene(unseen)], tmp_path / "other", TILES)
    given = {"archive": str(tmp_path / "archive"), "run_dir": str(tmp_path / "run"), "global_batch": 24, "steps": 12}
    folder = pretrain_single_process(resolve_config(None, given, [*SMALL_MODEL, "model.stem=wavelength"]))
    encoder = load_encoder(folder)
    kept = {(one.scene, len(one.mean)): one.mean for one in read_config(folder).statistics}
    for record in Archive.open(tmp_path / "archive").manifest.scenes:
        hsi = record.modality("hsi")
        assert kept[record.name, hsi.bands] == pytest.approx(hsi.mean, rel=1e-5)
    for archive, name in (("archive", "wide"), ("archive", "visible"), ("other", "unseen")):
        scene = Archive.open(tmp_path / archive).read_scene(name)
        own = encoder_for_scene(encoder, scene.record, "run/encoder")
        view = view_scene(scene, scene.record.modalities, own, FewshotConfig())
        read = [
            part.features.values_PMF
            for part in read_pixels(own, view.windows, view.grid, view.present, FewshotConfig())
        ]
        features_PMF = torch.cat(read)
        assert len(features_PMF) == view.present.sum()
        assert torch.isfinite(features_PMF).all()
        assert features_PMF.std(dim=0).mean() > 0.01, "pixels are told apart"
