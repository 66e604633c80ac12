"""A long run of two workers under one fault after the other: does it leak, leave anything behind, or change a loss?

    python tests/soak/pretraining.py --minutes 60 --every 120 --json soak.json

A run of a small model goes on until the time is up, on a Ray cluster of its own: a head, and two nodes of one core.
Every so many seconds one of `FAULTS` comes, in turn. Beside it the same run goes on without any fault, on another such
cluster, until it has as many steps. The JSON has the faults, how memory and open files of each kind of process of the
disturbed cluster grow, what was left over, and whether the losses are the same to the last bit. A picture beside it
shows memory and open files over time. Exit status 1 says that a loss differs or that something was left over; how fast
memory grows is for the reader to judge.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path += [str(REPOSITORY / folder) for folder in ("", "benchmarks", "tests/train")]

from marked_processes import processes_with  # noqa: E402
from process_samples import Sampler  # noqa: E402
from ray_nodes import RayNodes, ray_nodes  # noqa: E402
from report import Row  # noqa: E402
from small_runs import leftover_checkpoints, pretrain_command  # noqa: E402
from soak_command import Figures, run_soak, soak_parser  # noqa: E402

from shards.archive.tiling import ArchiveSettings  # noqa: E402
from shards.build.build_archive import build_archive  # noqa: E402
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec  # noqa: E402

STEPS = 10**7  # more than any time allows
SETTINGS = ("checkpoint_every=50", "max_failures=100000", "timeout_s=300")
STOPPED_S = 15.0  # that a worker stands still
NODE_TRIES = 5
STORAGE_S = 20.0  # that the storage is slow, or full
PATIENCE_S = 900.0  # in which a step must follow a fault, and the run must end when asked to; for busy machines too
KINDS = {
    "RayTrainWorker": "worker", "faulty_run.py": "driver", "raylet/raylet": "raylet", "gcs_server": "head's server",
}  # fmt: skip


@dataclass
class Cluster:
    """A head that directs, and nodes of one core.

    Attributes:
        nodes: its processes.
        storage_state: a file that says what the storage does now, which workers read.
        names: of the nodes that have cores.
    """

    nodes: RayNodes
    storage_state: Path
    names: list[str] = field(default_factory=list)
    _started: int = 0

    def add_node(self) -> None:
        for left in reversed(range(NODE_TRIES)):
            self._started += 1
            name = f"node {self._started}"
            try:
                self.nodes.start(name, cores=1)
            except AssertionError:  # on a busy machine: Ray gives a node 30 s to come up
                self.nodes.remove(name)
                if not left:
                    raise
                continue
            self.names.append(name)
            return

    def kill_worker(self) -> None:
        self._worker()[1].kill()

    def stop_and_continue_worker(self) -> None:
        _, worker = self._worker()
        worker.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        worker.send_signal(signal.SIGCONT)

    def slow_storage(self) -> None:
        self._storage_is("slow")

    def full_storage(self) -> None:
        self._storage_is("full")

    def lose_node(self) -> None:
        name, _ = self._worker()
        self.nodes.remove(name)
        self.names.remove(name)
        self.add_node()

    def _worker(self) -> tuple[str, psutil.Process]:
        """The first node that has a worker, and the worker."""
        for name in self.names:
            if found := self.nodes.processes(name, "RayTrainWorker"):
                return name, found[0]
        raise RuntimeError("no node has a worker")

    def _storage_is(self, state: str) -> None:
        self.storage_state.write_text(state)
        time.sleep(STORAGE_S)
        self.storage_state.write_text("")


@contextmanager
def cluster_of_two(storage_state: Path) -> Iterator[Cluster]:
    """A cluster of two nodes of one core and a head without."""
    storage_state.touch()
    # on a machine that does much else workers starve with Ray's 15, and nodes answer late
    with ray_nodes(RAY_worker_niceness="0", RAY_health_check_timeout_ms="30000") as nodes:
        cluster = Cluster(nodes, storage_state)
        nodes.start("head", cores=0)
        cluster.add_node()
        cluster.add_node()
        yield cluster


FAULTS: tuple[tuple[str, Callable[[Cluster], None]], ...] = (
    ("worker killed", Cluster.kill_worker),
    ("worker stopped and continued", Cluster.stop_and_continue_worker),
    ("slow storage", Cluster.slow_storage),
    ("full storage", Cluster.full_storage),
    ("node lost", Cluster.lose_node),
)


def losses(folder: Path) -> list[float]:
    """Of the steps whose line is whole."""
    file = folder / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line)["loss"] for line in lines if line.endswith("\n")]


@contextmanager
def running(cluster: Cluster, folder: Path, archive: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A run that is asked to stop at the end, and must then say that it has saved what is done."""
    script = [sys.executable, str(REPOSITORY / "tests/train/faulty_run.py"), "told", str(cluster.storage_state)]
    command = script + pretrain_command(folder, archive, ("--steps", str(STEPS), "--workers", "2"), SETTINGS)[1:]
    environment = {**cluster.nodes.environment, "RAY_ADDRESS": cluster.nodes.address}
    log = folder.with_suffix(".log")
    with log.open("w") as output:
        run = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield run
            run.terminate()
            if run.wait(timeout=PATIENCE_S) != 128 + signal.SIGTERM:
                raise RuntimeError(f"the run ended with status {run.returncode}: {log.read_text()[-2000:]}")
        finally:
            run.kill()
            run.wait()


def wait_for_step(run: "subprocess.Popen[bytes]", folder: Path, step: int, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while len(losses(folder)) < step:
        if run.poll() is not None or time.monotonic() > deadline:
            said = folder.with_suffix(".log").read_text()[-2000:]
            raise RuntimeError(f"step {step} was not reached in {patience_s:g} s: {said}")
        time.sleep(0.5)


def under_faults(
    cluster: Cluster, folder: Path, archive: Path, start: float, ends: float, every_s: float
) -> Iterator[Row]:
    """Runs until it ends (s, by the clock of its start); a row for each fault, once the run goes on after it."""
    brought = 0
    with running(cluster, folder, archive) as run:
        while True:
            wait_for_step(run, folder, len(losses(folder)) + 1)  # its workers have come up
            time.sleep(every_s)
            if time.monotonic() > ends:
                return
            wait_for_step(run, folder, len(losses(folder)) + 1)  # they are at work, whatever happened meanwhile
            name, bring = FAULTS[brought % len(FAULTS)]
            began = time.monotonic()
            bring(cluster)
            step = len(losses(folder))
            wait_for_step(run, folder, step + 1)  # the log goes back to the newest checkpoint first
            brought += 1
            yield {
                "part": "faults", "fault": name, "at_s": round(began - start, 1), "done_steps": step,
                "next_step_after_s": round(time.monotonic() - began, 1),
            }  # fmt: skip


def soak(scratch: Path, seconds: float, every_s: float, figures: Figures) -> tuple[list[Row], bool]:
    """The rows of a soak, and whether nothing was left over and no loss differs."""
    archive, run, undisturbed = scratch / "archive", scratch / "disturbed", scratch / "undisturbed"
    states = scratch / "storage-state", scratch / "storage-state-undisturbed"
    spec = GeneratedSceneSpec(name="soaked", height=256, width=256, bands=12)
    build_archive([GeneratedScene(spec)], archive, ArchiveSettings(tile_size=16, halo=5))
    rows: list[Row] = []

    def rows_so_far(done: int, left: str) -> list[Row]:
        same = losses(undisturbed)[:done] == losses(run)[:done]
        ending: Row = {
            "part": "run", "soaked_s": round(soaked_s, 1), "compared_steps": done, "faults": len(rows),
            "losses_equal": same, "left_over": left,
        }  # fmt: skip
        return [*rows, ending]

    def events() -> list[tuple[float, str]]:
        return [(float(str(row["at_s"])), str(row["fault"])) for row in rows]

    with cluster_of_two(states[0]) as cluster, cluster_of_two(states[1]) as quiet_cluster:
        tokens = [each.nodes.environment["RAY_AUTH_TOKEN"] for each in (cluster, quiet_cluster)]
        sampler = Sampler(partial(processes_with, tokens[0]), KINDS, "Ray's other processes")
        sampler.start()
        begun = time.monotonic()
        with running(quiet_cluster, undisturbed, archive) as quiet_run:
            for row in under_faults(cluster, run, archive, begun, begun + seconds, every_s):
                print(row, flush=True)
                rows.append(row)
                soaked_s = time.monotonic() - begun
                both = min(len(losses(run)), len(losses(undisturbed)))
                figures.keep(rows_so_far(both, "not known yet"), sampler.samples, events(), ended=False)
            sampler.stop()
            soaked_s, done = time.monotonic() - begun, len(losses(run))
            wait_for_step(quiet_run, undisturbed, done, seconds + PATIENCE_S)
    left = [" ".join(process.cmdline())[:200] for token in tokens for process in processes_with(token)]
    left += leftover_checkpoints(run, keep=2) + leftover_checkpoints(undisturbed, keep=2)
    kept = {archive, run, undisturbed, *states, run.with_suffix(".log"), undisturbed.with_suffix(".log")}
    kept |= {*scratch.glob("torchinductor_*")}  # PyTorch's compiler keeps it for the next process
    left += [path.name for path in sorted(scratch.iterdir()) if path not in kept]
    found = figures.keep(rows_so_far(done, "; ".join(left) or "nothing"), sampler.samples, events(), ended=True)
    return found, bool(found[len(rows)]["losses_equal"]) and not left


def main() -> int:
    parser = soak_parser(__doc__, 60.0, "faults come")
    parser.add_argument("--every", type=float, default=120.0, metavar="S", help="seconds between faults (120)")
    return run_soak(
        parser,
        lambda scratch, given, figures: soak(scratch, given.minutes * 60, given.every, figures),
        ("faults", "growth", "run"),
        lambda given: {"minutes": given.minutes, "every_s": given.every, "workers": 2},
    )


if __name__ == "__main__":
    sys.exit(main())
