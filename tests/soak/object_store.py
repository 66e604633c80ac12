"""An archive is built on an S3 server that fails one request in twenty, verified and read, again and again.

    python tests/soak/object_store.py --minutes 10 --json soak-s3.json

Each round builds an archive of a generated scene on the server, which must hold the same bytes as one in a folder; then
it is verified, and every tile and the whole scene are read through an empty cache. The JSON has the rounds, how many
requests came and failed, and how memory and open files of this process grow; a picture beside it shows them over time.
Exit status 1 says that bytes differ or that something was left over.
"""

import os
import sys
import time
from pathlib import Path

import numpy as np
import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path += [str(REPOSITORY / folder) for folder in ("", "benchmarks", "tests/shards")]

from failing_s3 import BUCKET, FailingS3, failing_s3  # noqa: E402
from process_samples import Sampler  # noqa: E402
from report import Row  # noqa: E402
from soak_command import Figures, run_soak, soak_parser  # noqa: E402

from shards.archive.archive import Archive  # noqa: E402
from shards.archive.store import open_store  # noqa: E402
from shards.archive.tiling import ArchiveSettings  # noqa: E402
from shards.build.build_archive import build_archive  # noqa: E402
from shards.simulate.generated_scene import GeneratedScene, GeneratedSceneSpec  # noqa: E402

SCENE = GeneratedSceneSpec(name="soaked", height=128, width=128, bands=12)
SETTINGS = ArchiveSettings(tile_size=16, halo=5, samples_per_shard=8)


def all_bytes(location: str) -> dict[str, bytes]:
    store = open_store(location)
    return {path: store.read(path) for path in store.sizes()}


def one_round(location: str, expected: dict[str, bytes], scene: dict[str, np.ndarray]) -> list[str]:
    """Builds, verifies, reads and deletes an archive; what was wrong."""
    build_archive([GeneratedScene(SCENE)], location, SETTINGS)
    wrong = [] if all_bytes(location) == expected else ["bytes differ from those in a folder"]
    archive = Archive.open(location, verify="hash")
    read = archive.read_scene(SCENE.name).values
    wrong += [f"{name} differs" for name in scene if not np.array_equal(read[name], scene[name], equal_nan=True)]
    for tile in archive.scene(SCENE.name).tiles:
        archive.read_tile(tile)
    open_store(location).delete_all()
    wrong += [f"{path} was left over" for path in open_store(f"s3://{BUCKET}").sizes()]
    return wrong


def soak(scratch: Path, seconds: float, one_in: int, figures: Figures) -> tuple[list[Row], bool]:
    """The rows of a soak, and whether nothing was wrong."""
    build_archive([GeneratedScene(SCENE)], scratch / "archive", SETTINGS)
    expected = all_bytes(str(scratch / "archive"))
    scene = dict(Archive.open(scratch / "archive").read_scene(SCENE.name).values)
    os.environ |= {"DIFFCLIP_CACHE": str(scratch / "cache"), "DIFFCLIP_CACHE_MB": "1"}
    sampler = Sampler(lambda: [psutil.Process()], {}, "this process, the server in it")
    rounds: list[float] = []
    wrong: list[str] = []

    def rows(server: FailingS3) -> list[Row]:
        found: list[Row] = [
            {"part": "failures", "kind": kind, "requests": count} for kind, count in server.failures.items()
        ]
        ending: Row = {
            "part": "run", "soaked_s": round(sum(rounds), 1), "rounds": len(rounds), "requests": server.requests,
            "failed_requests": server.failures.total(), "median_round_s": round(float(np.median(rounds)), 2),
            "wrong": "; ".join(wrong) or "nothing",
        }  # fmt: skip
        return [*found, ending]

    with failing_s3(one_in) as server:
        sampler.start()
        start = time.monotonic()
        while not wrong and time.monotonic() - start < seconds:
            began = time.monotonic()
            wrong = one_round(f"s3://{BUCKET}/archive-{len(rounds)}", expected, scene)
            rounds.append(time.monotonic() - began)
            print(f"round {len(rounds)}: {rounds[-1]:.1f} s, {server.failures.total()} of {server.requests} failed")
            figures.keep(rows(server), sampler.samples, [], ended=False)
        sampler.stop()
    kept = {scratch / "archive", scratch / "cache"}
    wrong += [f"{path.name} was left over" for path in scratch.iterdir() if path not in kept]
    return figures.keep(rows(server), sampler.samples, [], ended=True), not wrong


def main() -> int:
    parser = soak_parser(__doc__, 10.0, "rounds begin")
    parser.add_argument("--one-in", type=int, default=20, metavar="N", help="one request in N fails (20)")
    return run_soak(
        parser,
        lambda scratch, given, figures: soak(scratch, given.minutes * 60, given.one_in, figures),
        ("failures", "growth", "run"),
        lambda given: {"minutes": given.minutes, "one_in_requests": given.one_in},
    )


if __name__ == "__main__":
    sys.exit(main())
