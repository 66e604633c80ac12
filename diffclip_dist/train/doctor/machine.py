"""What a machine has for pretraining: libraries, GPUs, a compiler, build locks, Ray."""

import os
import platform
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import torch

from diffclip_dist.train.doctor.finding import Finding
from diffclip_dist.train.monitor.matrix_rate import matrix_rate
from shards.extras import install_line, installed

LIBRARIES: Final = ("torch", "numpy", "rasterio", "zarr")
TRAINING_LIBRARIES: Final = ("deepspeed", "ray")
# A build takes minutes; a lock of a killed one stays for ever, and torch waits for it for ever
STALE_LOCK_S: Final = 600.0
_CONNECT_S: Final = 3.0
_RAY_PORT: Final = 6379


def check_libraries() -> Iterator[Finding]:
    """Versions, and the extra that brings what is missing."""
    versions = [f"Python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in LIBRARIES)]
    yield Finding("libraries", ", ".join(versions))
    for name in TRAINING_LIBRARIES:
        if installed(name):
            yield Finding(name, metadata.version(name))
        else:
            yield Finding(name, "is not installed", "stop", install_line(name))


def check_devices() -> Iterator[Finding]:
    """The GPUs, or the cores, with the rate of a large matrix product."""
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        rate = matrix_rate(torch.device("cuda", number), torch.bfloat16)
        yield Finding(
            f"GPU {number}",
            f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {rate / 1e12:,.0f} TFLOP/s in bfloat16",
        )
    if torch.cuda.is_available():
        return
    rate = matrix_rate(torch.device("cpu"), torch.float32)
    cores = f"{torch.get_num_threads()} of {os.cpu_count()} cores, {rate / 1e9:,.0f} GFLOP/s in float32"
    if shutil.which("nvidia-smi") is None:
        yield Finding("GPUs", f"none; {cores}")
    else:
        yield Finding(
            "GPUs", f"torch {torch.__version__} sees none, though nvidia-smi is here; {cores}", "stop",
            "install the build of torch for this driver's CUDA version, or set CUDA_VISIBLE_DEVICES= to train without",
        )  # fmt: skip


def check_compiler(environment: Mapping[str, str] = os.environ) -> Finding:
    """The C++ compiler that torch.compile and DeepSpeed's helper for state on disk are built with."""
    name = environment.get("CXX", "c++")
    found = shutil.which(name, path=environment.get("PATH"))
    if found is not None and (installed("ninja") or shutil.which("ninja", path=environment.get("PATH"))):
        return Finding("compiler", found)
    missing = f"{name} is not there" if found is None else "ninja is not there"
    return Finding(
        "compiler", missing, "note",
        "model.compile and offload to disk need it: install g++ and ninja, or set CXX",
    )  # fmt: skip


def check_build_locks(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Locks of builds that were killed: torch waits at them for ever, without a word."""
    given = environment.get("TORCH_EXTENSIONS_DIR")
    folder = Path(given) if given else Path.home() / ".cache" / "torch_extensions"
    stale = 0
    for lock in sorted(folder.rglob("lock")):
        try:
            age = time.time() - lock.stat().st_mtime
        except FileNotFoundError:  # its build has ended meanwhile
            continue
        if age > STALE_LOCK_S:
            stale += 1
            yield Finding(
                "build lock", f"{lock} is {age / 60:,.0f} minutes old", "stop", f"if nothing is built now: rm '{lock}'"
            )
    if not stale:
        yield Finding("build locks", f"no stale one in {folder}")


def check_ray(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether the cluster answers that a run would join, and whether there is a token for it."""
    address = environment.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        yield Finding("Ray cluster", "RAY_ADDRESS is not set, so a run starts its own on this machine")
        return
    if address != "auto":
        yield _reached(address)
    if environment.get("RAY_AUTH_MODE") != "token":
        yield Finding(
            "Ray token", "RAY_AUTH_MODE is not token", "note",
            "whoever reaches the cluster can run programs on it: set RAY_AUTH_MODE=token on all nodes",
        )  # fmt: skip
        return
    file = Path(environment.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if environment.get("RAY_AUTH_TOKEN") or file.is_file():
        yield Finding("Ray token", "there is one")
    else:
        yield Finding(
            "Ray token", f"there is none: RAY_AUTH_TOKEN is not set, and {file} is not there", "stop",
            "set RAY_AUTH_TOKEN to the cluster's",
        )  # fmt: skip


def _reached(address: str) -> Finding:
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    try:
        host, port = parts.hostname or "", parts.port or _RAY_PORT
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return Finding("Ray cluster", f"{address} answers")
    except (OSError, ValueError) as error:
        return Finding(
            "Ray cluster", f"{address} does not answer: {getattr(error, 'strerror', None) or error}", "stop",
            "start it with `ray start --head`, or unset RAY_ADDRESS to have a run start its own",
        )  # fmt: skip
