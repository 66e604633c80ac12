"""A run that goes on for more steps than it was given at first, or for fewer."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import SMALL_MODEL, STEPS, Pretrain, Refused, Run

from diffclip_dist.data.batches import RankShare, WindowStream
from diffclip_dist.model.saved_encoder import read_config
from diffclip_dist.train.plan import open_plan
from diffclip_dist.train.pretrain_config import OptimiserConfig, resolve_config
from diffclip_dist.train.schedule import learning_rate

CONSTANT = ("optimiser.warmup_steps=0", "optimiser.final_share=1")


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_a_finished_run_goes_on_as_if_it_had_been_given_all_steps_at_first(pretrain: Pretrain, tmp_path: Path) -> None:
    whole = pretrain(tmp_path / "whole", "--steps", "20", settings=CONSTANT)
    assert whole.status == 0, whole.err
    part = pretrain(tmp_path / "part", "--steps", "10", settings=CONSTANT)
    assert part.status == 0, part.err
    more = pretrain(tmp_path / "part", "--steps", "20", "--resume", settings=CONSTANT)
    assert more.status == 0, more.err
    assert "going on from step 10" in more.out
    assert "the run now has 20 steps, it had 10: from step 11 on the learning rate is that of a run of 20" in more.out
    assert more.losses == whole.losses
    assert read_config(more.folder / "encoder").training.steps == 20


def test_fewer_steps_than_are_done_are_refused(refused: Refused, undisturbed: Run) -> None:
    before = (undisturbed.folder / "config.yaml").read_bytes()
    fewer = ("--steps", str(STEPS - 1), "--workers", "2", "--resume")
    line = refused(undisturbed.folder, *fewer, settings=("checkpoint_every=10",))
    assert line == (
        f"error: {undisturbed.folder}: --resume: steps: expected at least the {STEPS} that are done, found {STEPS - 1}"
    )
    assert (undisturbed.folder / "config.yaml").read_bytes() == before


def test_the_order_of_samples_does_not_depend_on_the_number_of_steps(generated_archive: Path, tmp_path: Path) -> None:
    given = {"archive": str(generated_archive), "run_dir": str(tmp_path / "run"), "global_batch": 24, "steps": 25}
    short = resolve_config(None, given, SMALL_MODEL)
    streams = [
        WindowStream(open_plan(config).data, RankShare(0, 1), torch.device("cpu"))
        for config in (short, replace(short, steps=50))
    ]
    for step in range(50):
        ours, theirs = (stream.samples(step) for stream in streams)
        assert ours.sensor == theirs.sensor
        np.testing.assert_array_equal(ours.tile_B, theirs.tile_B)
        np.testing.assert_array_equal(ours.pixel_B, theirs.pixel_B)


def test_the_schedule_of_more_steps_goes_up_again_and_never_over_the_peak() -> None:
    config = OptimiserConfig(learning_rate=1.0, warmup_steps=5, final_share=0.05)
    last, first = learning_rate(24, 25, config), learning_rate(25, 50, config)
    assert last == pytest.approx(0.05)
    assert last < first < 1.0
    assert learning_rate(49, 50, config) == pytest.approx(0.05)
