"""Runs a function over many items, in this process or as Ray tasks on one machine or a cluster."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, TypeVar

# a cancelled call may still write for this long
SECONDS_TO_STOP = 30

# shards go to disk; only plans and records go through Ray
OBJECT_STORE_BYTES = 100 << 20

# without this setting Ray replaces 127.0.0.1 by this machine's outward address and listens on every interface; it
# works on any system, whatever its name says. Ray reads it when it is imported
LOOPBACK_ONLY: Final = MappingProxyType({"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"})

Shared = TypeVar("Shared")
Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Shared, Item], Result],
    calls: Sequence[tuple[Shared, Item]],
    workers: int,
    *,
    gpus: bool = False,
) -> Iterator[Result]:
    """Results of `function(shared, item)` for each call in the order in which they finish.

    Args:
        function: importable, free of state.
        calls: what each call takes. Calls that share an object stand together: it is stored once for them, and no
            call is sent what others share.
        workers: calls that run at once; 1 runs in this process, more run on the Ray cluster that RAY_ADDRESS
            names, or on one started here.
        gpus: whether calls in other processes use a GPU where the cluster has any; they share them evenly.

    Raises:
        Exception: what a call raised; the remaining calls are dropped.
    """
    if workers == 1 or len(calls) == 1:
        for shared, item in calls:
            yield function(shared, item)
        return
    with ray_session(workers):
        import ray  # takes a second to import, and a single worker does not need it

        gpu_share = min(ray.cluster_resources().get("GPU", 0.0) / workers, 1.0) if gpus else 0.0
        remote = ray.remote(num_cpus=1, num_gpus=gpu_share)(function)
        tasks = (remote.remote(reference, item) for reference, item in _stored(calls))
        running = list(islice(tasks, workers))
        while running:
            (done,), running = ray.wait(running, num_returns=1)
            running += islice(tasks, 1)
            try:
                result: Result = ray.get(done)
            except ray.exceptions.RayTaskError as error:
                for left in running:
                    ray.cancel(left, force=True)
                ray.wait(running, num_returns=len(running), timeout=SECONDS_TO_STOP)
                raise error.cause from error
            yield result


def _stored(calls: Iterable[tuple[Shared, Item]]) -> Iterator[tuple[Any, Item]]:
    """Calls with references to what they share, in Ray's object store."""
    import ray

    last, reference = None, None
    for shared, item in calls:
        if reference is None or shared is not last:
            last, reference = shared, ray.put(shared)
        yield reference, item


@contextmanager
def ray_session(workers: int) -> Iterator[None]:
    """Connects to the Ray cluster that RAY_ADDRESS names, or starts one here, on loopback, and stops it at the end."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        os.environ.update({name: value for name, value in LOOPBACK_ONLY.items() if name not in os.environ})
    import ray

    if ray.is_initialized():
        yield
        return
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(
            # without an address Ray would join any cluster that someone has started on this machine
            address="local",
            _node_ip_address="127.0.0.1",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    try:
        yield
    finally:
        ray.shutdown()
