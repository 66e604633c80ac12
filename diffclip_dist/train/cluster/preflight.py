"""Checks every node before a worker starts.

A task on each node answers; the driver answers for its own. Every wait has a limit, and every fault names the node
and what was expected.
"""

import ipaddress
import os
import platform
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.filesize import decimal

from diffclip_dist.train.backend.offload import reaches_disk
from diffclip_dist.train.checkpoint.manager import library_versions
from diffclip_dist.train.memory import checkpoint_bytes
from diffclip_dist.train.plan import TrainPlan
from diffclip_dist.train.pretrain_config import OffloadConfig, PretrainConfig
from diffclip_dist.train.zero_stage import NodeMemory
from shards.archive.archive import Archive
from shards.archive.store import LocalStore, Store, open_store
from shards.errors import BadInput, DamagedArchive

_ANSWER_S: Final = 120.0  # a node that has not run Ray tasks before imports torch first
_SEEN_S: Final = 10.0  # NFS clients may remember for some seconds that a file is absent


@dataclass(frozen=True)
class DiskNeed:
    """Bytes that must be free before a run.

    Attributes:
        storage: where checkpoints go.
        scratch: in each node's folder for temporary files; a checkpoint lies there until its upload ends.
    """

    storage: int
    scratch: int

    @classmethod
    def of(cls, plan: TrainPlan, resume: bool) -> "DiskNeed":
        """Room for the checkpoints that are kept and the next one; a resumed run has kept its own already."""
        each = checkpoint_bytes(plan.parameters, averaged=plan.config.optimiser.ema_decay > 0.0)
        return cls(storage=each * (2 if resume else plan.config.keep_checkpoints + 1), scratch=each)


@dataclass(frozen=True)
class MarkedPlace:
    """A place that every node must see and write to.

    Attributes:
        setting: the setting that names it.
        location: a folder or a URL.
        marker: name of the file that the driver has written there.
    """

    setting: str
    location: str
    marker: str

    def __str__(self) -> str:
        return f"{self.location} ({self.setting})"


@dataclass(frozen=True)
class PlaceReport:
    """What a node finds at a marked place.

    Attributes:
        sees_marker: whether the driver's file is there.
        write_fault: why the node cannot write there; ``None`` where it can.
        free: bytes; ``None`` where they are unknown, as on object stores.
    """

    sees_marker: bool
    write_fault: str | None
    free: int | None


@dataclass(frozen=True)
class NodeReport:
    """The answer of one node.

    Attributes:
        versions: of Python and the libraries.
        places: one report for each marked place.
        fingerprint: of the archive, or why it cannot be opened.
        scratch_free: bytes in the folder for temporary files.
        collectives_fault: why other nodes cannot reach gloo on this one; ``None`` where they can.
        offload_fault: why the node cannot keep state on its disk; ``None`` where it can, or need not.
        memory: of the node.
    """

    versions: Mapping[str, str]
    places: tuple[PlaceReport, ...]
    fingerprint: str
    scratch_free: int
    collectives_fault: str | None
    offload_fault: str | None
    memory: NodeMemory


def check_nodes(plan: TrainPlan, need: DiskNeed) -> dict[str, NodeMemory]:
    """Checks every living node of the Ray cluster.

    Args:
        plan: the run's, with absolute folders.
        need: of disk.

    Returns:
        The id of each node to its memory.

    Raises:
        BadInput: a node lacks something that the run needs; the message names both. The run's folder stays as it was.
    """
    config = plan.config
    nodes = [node for node in ray.nodes() if node["Alive"]]
    with ExitStack() as stack:
        wanted = [("--run-dir", config.run_dir), ("storage_path", config.storage_path)]
        places = [stack.enter_context(_marked(name, location)) for name, location in wanted if location]
        answers = _ask(nodes, config, places)
    expected = inspected_versions()
    faults = []
    for node in nodes:
        answer = answers[node["NodeID"]]
        found = (
            [answer]
            if isinstance(answer, str)
            else [*_faults(answer, places, config.archive, expected, plan.manifest.fingerprint, need)]
        )
        if not isinstance(answer, str) and answer.collectives_fault and _uses_gloo_across(nodes):
            found.append(answer.collectives_fault)
        faults += [f"node {_named(node)}: {fault}" for fault in found]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(faults[0] + more)
    return {node: answer.memory for node, answer in answers.items() if not isinstance(answer, str)}


def inspect_node(config: PretrainConfig, places: Sequence[MarkedPlace]) -> NodeReport:
    """Answers for the node that this process runs on.

    Args:
        config: the run's settings.
        places: that the driver has marked.
    """
    return NodeReport(
        versions=inspected_versions(),
        places=tuple(_inspect_place(place) for place in places),
        fingerprint=_fingerprint(config.archive),
        scratch_free=shutil.disk_usage(tempfile.gettempdir()).free,
        collectives_fault=_collectives_fault(),
        offload_fault=_offload_fault(config.offload),
        memory=NodeMemory.here(),
    )


def _inspect_place(place: MarkedPlace) -> PlaceReport:
    store = open_store(place.location)
    deadline = time.monotonic() + _SEEN_S
    while not (seen := _holds(store, place.marker)) and time.monotonic() < deadline:
        time.sleep(0.2)
    if not seen:
        return PlaceReport(sees_marker=False, write_fault=None, free=None)
    free = shutil.disk_usage(store.folder).free if isinstance(store, LocalStore) else None
    return PlaceReport(sees_marker=True, write_fault=_write_fault(store), free=free)


def _holds(store: Store, path: str) -> bool:
    try:
        store.read(path)
    except OSError:
        return False
    return True


def inspected_versions() -> dict[str, str]:
    """Versions of Python and the libraries, which must be equal on all nodes."""
    return {"python": platform.python_version(), **library_versions()}


def _ask(
    nodes: list[dict[str, Any]], config: PretrainConfig, places: Sequence[MarkedPlace]
) -> dict[str, NodeReport | str]:
    """Maps each node to its report, or to the reason why there is none."""
    own = ray.get_runtime_context().get_node_id()
    task = ray.remote(num_cpus=0, max_retries=0)(inspect_node)
    asked = {
        node["NodeID"]: task.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(config, places)
        for node in nodes
        if node["NodeID"] != own
    }
    answers: dict[str, NodeReport | str] = {own: inspect_node(config, places)}
    ready = ray.wait(list(asked.values()), num_returns=len(asked), timeout=_ANSWER_S)[0] if asked else []
    for node, answer in asked.items():
        if answer not in ready:
            ray.cancel(answer, force=True)
            answers[node] = f"expected an answer within {_ANSWER_S:.0f} s, found none"
            continue
        try:
            answers[node] = ray.get(answer)
        except ray.exceptions.RayError as error:  # the node is gone, or cannot import what the driver can
            answers[node] = f"expected diffclip-dist to answer as on the driver, found: {_last_line(error)}"
    return answers


def _faults(
    report: NodeReport,
    places: Sequence[MarkedPlace],
    archive: str,
    expected: Mapping[str, str],
    fingerprint: str,
    need: DiskNeed,
) -> Iterator[str]:
    for name, version in expected.items():
        if (found := report.versions.get(name)) != version:
            yield f"expected {name} {version}, as on the driver, found {found}"
    for place, found_there in zip(places, report.places, strict=True):
        if not found_there.sees_marker:
            yield f"expected {place} to be the driver's, a place that every node sees, found another"
        elif found_there.write_fault is not None:
            yield f"expected to write to {place}, found: {found_there.write_fault}"
        # checkpoints go to the last place
        elif place == places[-1] and found_there.free is not None and found_there.free < need.storage:
            yield _too_full(str(place), "checkpoints", need.storage, found_there.free)
    if report.fingerprint != fingerprint:
        yield f"expected the archive {fingerprint} at {archive}, found: {report.fingerprint}"
    if report.offload_fault is not None:
        yield report.offload_fault
    if report.scratch_free < need.scratch:
        yield _too_full("its folder for temporary files (TMPDIR)", "a checkpoint", need.scratch, report.scratch_free)


def _too_full(place: str, what: str, need: int, free: int) -> str:
    return f"expected {decimal(need)} free for {what} in {place}, found {decimal(free)}"


@contextmanager
def _marked(setting: str, location: str) -> Iterator[MarkedPlace]:
    """Marks a place with a file of a random name, and removes the file and the folders made for it afterwards."""
    store = open_store(location)
    own = [store.folder, *store.folder.parents] if isinstance(store, LocalStore) else []
    missing = [folder for folder in own if not folder.exists()]
    place = MarkedPlace(setting, location, f".preflight-{secrets.token_hex(4)}")
    try:
        store.write(place.marker, b"0")
        yield place
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        raise BadInput(f"{place}: expected a place to write to, found: {reason}") from error
    finally:
        with suppress(OSError):
            store.delete(place.marker)
        for folder in missing:
            with suppress(OSError):  # another process has written there meanwhile
                folder.rmdir()


def _write_fault(store: Store) -> str | None:
    name = f".preflight-{secrets.token_hex(4)}"
    try:
        store.write(name, b"0")
        store.delete(name)
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def _offload_fault(config: OffloadConfig) -> str | None:
    if config.folder is None or not config.to_disk:
        return None
    if not reaches_disk():
        return "expected libaio with its headers, and a C++ compiler, for offload to disk, found them not"
    fault = _write_fault(open_store(config.folder))
    return fault and f"expected to write to {config.folder} (offload.folder), found: {fault}"


def _fingerprint(archive: str) -> str:
    try:
        return Archive.open_unverified(archive).fingerprint  # the driver has verified the files
    except (BadInput, DamagedArchive, OSError) as error:
        return " ".join(str(error).split())


def _collectives_fault() -> str | None:
    """Why other nodes cannot reach gloo here: it listens at the address of the host's name, or at a given interface."""
    if interface := os.environ.get("GLOO_SOCKET_IFNAME"):
        known = [name for _, name in socket.if_nameindex()]
        return None if interface in known else f"expected GLOO_SOCKET_IFNAME to be one of {known}, found {interface}"
    host = socket.gethostname()
    with suppress(OSError):
        address = socket.gethostbyname(host)
        if not ipaddress.ip_address(address).is_loopback:
            return None
        return f"expected {host} to resolve to an address that others reach, or GLOO_SOCKET_IFNAME, found {address}"
    return f"expected {host} to resolve to an address, or GLOO_SOCKET_IFNAME, found neither"


def _uses_gloo_across(nodes: list[dict[str, Any]]) -> bool:
    addresses = {node["NodeManagerAddress"] for node in nodes}
    return len(addresses) > 1 and not any(node["Resources"].get("GPU") for node in nodes)


def _named(node: Mapping[str, Any]) -> str:
    return f"{node['NodeManagerAddress']} ({node['NodeManagerHostname']}, {node['NodeID'][:8]})"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
