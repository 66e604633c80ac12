"""What a planned run needs of this machine: places to write to, a clock, an archive, memory."""

import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import torch
from rich.filesize import decimal

from diffclip_dist.train.doctor.finding import Finding
from diffclip_dist.train.memory import activation_bytes, checkpoint_bytes, held_bytes
from diffclip_dist.train.plan import TrainPlan, plan_run
from diffclip_dist.train.precision import with_chosen_precision
from diffclip_dist.train.pretrain_config import PretrainConfig
from diffclip_dist.train.zero_stage import with_stage_for_this_machine
from shards.archive.archive import Archive
from shards.archive.store import LocalStore, open_store
from shards.errors import BadInput, DamagedArchive

# Of a disk's clock against this machine's; S3 refuses requests from 15 minutes on
_MOST_SKEW_S: Final = 5.0
# seconds since the epoch: no clock is before this release
_RELEASED: Final = 1_735_689_600.0


def check_planned_run(config: PretrainConfig) -> Iterator[Finding]:
    """Looks at the places, the archive and the memory of a run.

    Args:
        config: the run's settings.
    """
    plan: TrainPlan | None = None
    try:
        archive = Archive.open_unverified(config.archive)
        _read_a_row(archive)
    except (BadInput, DamagedArchive, OSError) as error:
        yield Finding(
            "archive", " ".join(str(error).split()), "stop",
            "build it with `diffclip shard`, or check every byte with `diffclip shard --verify`",
        )  # fmt: skip
    else:
        names = ", ".join(f"{one.name}{' (generated)' * one.generated}" for one in archive.manifest.scenes)
        yield Finding("archive", f"{config.archive} can be read: {names}")
        try:
            chosen = with_chosen_precision(config, on_gpus=torch.cuda.is_available())
            plan = with_stage_for_this_machine(plan_run(chosen, archive))
        except BadInput as error:
            yield Finding("settings", " ".join(str(error).split()), "stop", "change them")
    need = None
    if plan is not None:
        each = checkpoint_bytes(plan.parameters, averaged=config.optimiser.ema_decay > 0.0)
        need = each * (config.keep_checkpoints + 1)
        yield _check_memory(plan)
        yield _check_free("scratch", Path(tempfile.gettempdir()), each, "TMPDIR names another folder")
    yield from check_place("run_dir", config.run_dir, None if config.storage_path else need)
    if config.storage_path:
        yield from check_place("storage_path", config.storage_path, need)


def check_place(setting: str, location: str, need: int | None) -> Iterator[Finding]:
    """Whether a place can be written to, what is free there, and whether its clock is this machine's.

    Args:
        setting: that names it.
        location: a folder, which may be absent, or a URL.
        need: bytes of the checkpoints that are to lie there; None where none are, or their size is not known.
    """
    try:
        store = open_store(location)
        folder = _existing(store.folder) if isinstance(store, LocalStore) else None
        place = store if folder is None else open_store(folder)
        name = f".doctor-{secrets.token_hex(4)}"
        try:
            place.write(name, b"0")
            if folder is not None:
                yield _check_clock(folder / name)
        finally:
            with suppress(OSError):
                place.delete(name)
    except (BadInput, OSError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        yield Finding(
            "storage", f"{location} ({setting}) cannot be written: {reason}", "stop", f"name another with {setting}"
        )
        return
    if folder is None:
        yield Finding("storage", f"{location} ({setting}) can be written")
    else:
        yield _check_free("storage", folder, need or 0, f"name another with {setting}")


def _read_a_row(archive: Archive) -> None:
    """Reads a row of the first scene.

    Raises:
        OSError, BadInput or DamagedArchive: it cannot be read.
    """
    record = archive.manifest.scenes[0]
    archive[record.name].read(tuple(one.name for one in record.modalities), slice(0, 1))


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that exists."""
    return next(one for one in (folder, *folder.parents) if one.exists())


def _check_clock(file: Path) -> Finding:
    now = time.time()
    skew = abs(now - file.stat().st_mtime)
    if now < _RELEASED:
        return Finding("clock", f"says {time.ctime(now)}", "stop", "set it: object stores refuse other times")
    if skew > _MOST_SKEW_S:
        return Finding(
            "clock", f"of {file.parent} is {skew:,.0f} s from this machine's", "note", "let both follow one time server"
        )
    return Finding("clock", f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}, as that of {file.parent}")


def _check_free(about: str, folder: Path, need: int, remedy: str) -> Finding:
    free = shutil.disk_usage(folder).free
    found = f"{folder} can be written, {decimal(free)} free"
    if free < need:
        return Finding(about, f"{found}, checkpoints need {decimal(need)}", "stop", remedy)
    return Finding(about, found + (f", checkpoints need {decimal(need)}" if need else ""))


def _check_memory(plan: TrainPlan) -> Finding:
    """What a worker holds at least, against what its device has free."""
    config = plan.config
    on_gpus = torch.cuda.is_available()
    windows = min(config.micro_batch, config.global_batch // config.workers)
    need = held_bytes(config, plan.parameters) + max(
        activation_bytes(config, group.schemas, windows) for group in plan.data.groups
    )
    if on_gpus:
        free, where = torch.cuda.mem_get_info()[0], "GPU 0"
    else:
        free, where, need = _available_memory(), "this machine", need * config.workers
    found = f"{plan.parameters:,} parameters and {windows} windows at once need {decimal(need)} on {where}"
    if need > free:
        smaller = replace(config, micro_batch=max(windows // 2, 1)).micro_batch
        return Finding(
            "memory", f"{found}, {decimal(free)} are free", "stop",
            f"take --set micro_batch={smaller}, --set activation_checkpointing=true, more workers under ZeRO stage 3, "
            "or a smaller preset",
        )  # fmt: skip
    return Finding("memory", f"{found}, {decimal(free)} are free; buffers and libraries come on top")


def _available_memory() -> int:
    """Bytes that this machine can still give, as Linux counts them."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, said = line.partition(":")
        if name == "MemAvailable":
            return int(said.split()[0]) * 1024
    raise OSError("/proc/meminfo: expected a line MemAvailable, found none")
