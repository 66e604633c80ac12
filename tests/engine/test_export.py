"""The exported encoder against the engine that trained it, under every ZeRO stage."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from diffclip_dist.config import PretrainConfig, resolve_config
from diffclip_dist.encoder import load_encoder
from diffclip_dist.engine.deepspeed_engine import join_process_group, start_engine
from diffclip_dist.engine.rank_run import export_encoder
from diffclip_dist.engine.train_step import train_step
from diffclip_dist.stream.batches import RankShare, WindowBatch, WindowStream
from diffclip_dist.stream.order import GlobalOrder
from diffclip_dist.stream.sensors import all_modalities, group_scenes
from shards.archive import Archive

WORLD_SIZE = 2


def features(encoder: torch.nn.Module, batch: WindowBatch) -> torch.Tensor:
    windows = {schema.name: batch.windows[schema.key] for schema in batch.schemas}
    valid = {schema.name: batch.valid[schema.key] for schema in batch.schemas}
    with torch.no_grad():
        read = encoder(windows, valid)
    return torch.cat([read.class_BMD.flatten(1), read.tokens_BMND.flatten(1)], dim=1)


def train_and_export(rank: int, config: PretrainConfig, address: str) -> None:
    """One rank: a few steps, the engine's features of the first batch, the export."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD_SIZE))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD_SIZE)
    device = torch.device("cpu")
    join_process_group(device)
    manifest = Archive.open(config.archive).manifest
    groups = group_scenes(manifest, config.model.window)
    order = GlobalOrder([group.tile_pixels for group in groups], config.order)
    share = RankShare(rank, WORLD_SIZE)
    stream = WindowStream(config.archive, groups, order, share, config.model.window, 0, device)
    modalities = all_modalities(groups)
    for zero_stage in range(4):
        staged = replace(config, zero_stage=zero_stage, run_dir=f"{config.run_dir}/{zero_stage}")
        engine = start_engine(staged, modalities, device, WORLD_SIZE)
        for step, batch in enumerate(stream.batches(0, 3)):
            train_step(engine, batch, staged, step)
        seen = features(engine.module.encoder, batch)
        export_encoder(engine, staged, modalities, manifest)
        if rank == 0:
            windows = {schema.name: batch.windows[schema.key] for schema in batch.schemas}
            valid = {schema.name: batch.valid[schema.key] for schema in batch.schemas}
            torch.save({"features": seen, "windows": windows, "valid": valid}, f"{staged.run_dir}/seen.pt")
        engine.destroy()
    dist.destroy_process_group()


@pytest.mark.timeout(600)
def test_exported_encoder_gives_the_engines_features(generated_archive: Path, tmp_path: Path) -> None:
    settings = ["model.window=7", "model.width=32", "model.depth=2", "model.heads=2", "model.decoder_depth=1"]
    given = {"archive": str(generated_archive), "run_dir": str(tmp_path), "global_batch": 16, "workers": WORLD_SIZE}
    config = resolve_config(None, given, settings)
    address = f"file://{tmp_path / 'rendezvous'}"
    torch.multiprocessing.spawn(train_and_export, args=(config, address), nprocs=WORLD_SIZE)
    for zero_stage in range(4):
        folder = tmp_path / str(zero_stage)
        seen = torch.load(folder / "seen.pt", weights_only=True)
        encoder = load_encoder(folder / "encoder")
        with torch.no_grad():
            read = encoder(seen["windows"], seen["valid"])
        ours = torch.cat([read.class_BMD.flatten(1), read.tokens_BMND.flatten(1)], dim=1)
        torch.testing.assert_close(ours, seen["features"])
        assert ours.std() > 0.1
