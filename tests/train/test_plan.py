"""A run's plan: opened and verified once, then used by ranks and loader processes without listing the archive."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import SMALL_MODEL

from diffclip_dist.train.backend.deepspeed_engine import join_process_group
from diffclip_dist.train.context import TrainContext
from diffclip_dist.train.plan import TrainPlan, open_plan
from diffclip_dist.train.pretrain_config import resolve_config
from diffclip_dist.train.single_process import world_of_one
from shards.archive.store import LocalStore
from shards.errors import DamagedArchive

CPU = torch.device("cpu")


@pytest.fixture
def archive(generated_archive: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(generated_archive, tmp_path / "archive"))


def planned(archive: Path, *settings: str) -> TrainPlan:
    return open_plan(
        resolve_config(None, {"archive": str(archive), "global_batch": 24, "steps": 2}, [*SMALL_MODEL, *settings])
    )


def test_a_plan_is_opened_on_an_archive_that_is_whole(archive: Path) -> None:
    plan = planned(archive)
    assert plan.manifest == plan.data.archive.manifest
    assert 0 < plan.encoder_parameters < plan.parameters
    (archive / "tiles" / "stray.tar").touch()
    with pytest.raises(DamagedArchive, match=r"stray\.tar"):
        planned(archive)


@pytest.mark.parametrize("loader_processes", [0, 1])
def test_a_rank_and_its_loader_processes_list_no_file_of_the_archive(
    archive: Path, monkeypatch: pytest.MonkeyPatch, loader_processes: int
) -> None:
    plan = planned(archive, f"stream.loader_processes={loader_processes}")
    with world_of_one(CPU):
        join_process_group(CPU)
        expected = list(TrainContext.of(planned(archive), CPU).batches(0))

        def refuse(store: LocalStore) -> dict[str, int]:
            raise AssertionError(f"{store.location} was listed")

        monkeypatch.setattr(LocalStore, "sizes", refuse)
        # whoever lists the archive again, in a loader process too, finds a file that the manifest does not name
        (archive / "tiles" / "stray.tar").touch()
        sent = pickle.loads(pickle.dumps(plan))  # noqa: S301 as Ray and the loader send it
        assert sent.manifest.fingerprint == plan.manifest.fingerprint
        assert sum(len(scene.tiles) for scene in sent.manifest.scenes) == len(sent.manifest.files) == 0
        found = list(TrainContext.of(sent, CPU).batches(0))
    for batch, other in zip(found, expected, strict=True):
        for key, windows in batch.windows.items():
            assert torch.equal(windows, other.windows[key])
