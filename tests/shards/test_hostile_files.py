"""Files made to harm: archives that unpack to any size; a scene.yaml that runs code, leads away or fills memory."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shards.archive.archive import Archive
from shards.archive.manifest import new_manifest, write_manifest
from shards.build.build_shard import file_record
from shards.errors import BadInput, DamagedArchive
from shards.scene.scene_file import read_scene_file

GZIP = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 5}}]


def sharding_of(metadata: dict[str, Any]) -> dict[str, Any]:
    (sharding,) = metadata["codecs"]
    configuration: dict[str, Any] = sharding["configuration"]
    return configuration


def forged(kind: str, metadata: dict[str, Any]) -> None:
    """Changes an array's metadata so that a chunk may unpack to any size."""
    if kind == "gzip":
        metadata["codecs"] = GZIP
    elif kind == "gzip inside a shard":
        sharding_of(metadata)["codecs"] = GZIP
    elif kind == "gzip over a shard's index":
        sharding_of(metadata)["index_codecs"] = GZIP
    elif kind == "a chunk of terabytes":
        sharding_of(metadata)["chunk_shape"] = [10**6, 10**6, 5]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**6, 10**6, 5]
    else:
        sharding_of(metadata)["chunk_shape"] = [1, 1, 5]
        metadata["chunk_grid"]["configuration"]["chunk_shape"] = [10**6, 10**6, 5]


@pytest.mark.parametrize(
    "kind",
    ["gzip", "gzip inside a shard", "gzip over a shard's index", "a chunk of terabytes", "a million million chunks"],
)
def test_an_array_that_could_unpack_to_any_size_is_refused(kind: str, generated_archive: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    subprocess.run(["cp", "-r", generated_archive, archive], check=True)
    manifest = Archive.open(archive).manifest
    (scene,) = manifest.scenes
    name = scene.modalities[0].name
    own, whole = f"{scene.zarr_path}/{name}/zarr.json", f"{scene.zarr_path}/zarr.json"
    for path in (own, whole):
        plain = json.loads((archive / path).read_text())
        metadata = plain if path == own else plain["consolidated_metadata"]["metadata"][name]
        forged(kind, metadata)
        (archive / path).write_text(json.dumps(plain))
    files = tuple(file_record(archive, record.path, record.samples) for record in manifest.files)
    (archive / "manifest.json").write_bytes(write_manifest(new_manifest(manifest.scenes, files)))
    refusals = (
        "expected chunks packed",
        "expected bytes, blosc",
        "larger than any archive's",
        "must produce a fixed-size encoding",  # newer zarr's own
    )
    with pytest.raises(DamagedArchive, match="|".join(refusals)):
        Archive.open(archive, verify="hash").read_scene(scene.name)


HOSTILE = {
    "a tag that would run code": "name: !!python/object/apply:os.system ['touch mark']\nmodalities: {}",
    "a scene that leads elsewhere": "name: ../../elsewhere\nmodalities: {hsi: {files: a.npy}}",
    "a modality that leads elsewhere": "name: town\nmodalities: {../hsi: {files: a.npy}}",
    "brackets without end": "name: " + "[" * 50_000,
    "aliases of aliases": "\n".join(
        ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        + ["name: town", "modalities: {hsi: {files: a.npy, bands: *a9}}"]
    ),
    "aliases as files": "\n".join(
        ["name: town", "crs: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
        + ["modalities: {hsi: {files: *a9, variable: *a9, wavelengths: *a9}}"]
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_scene_file_is_refused_in_bounded_memory(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "scene.yaml"
    file.write_text(HOSTILE[kind])
    command = (
        "import sys; from pathlib import Path; from shards.errors import BadInput\n"
        "from shards.scene.scene_file import read_scene_file\n"
        "try: read_scene_file(Path(sys.argv[1]))\n"
        "except BadInput as error: print(str(error)[:500]); sys.exit(2)"
    )

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))

    done = subprocess.run(
        [sys.executable, "-c", command, str(file)],
        cwd=tmp_path, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-500:]
    assert str(file) in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["scene.yaml"]


def test_a_scene_file_may_still_repeat_a_part_by_an_alias(tmp_path: Path) -> None:
    file = tmp_path / "scene.yaml"
    file.write_text("name: town\nmodalities: {a: &one {files: a.npy, bands: 1}, b: *one}")
    assert read_scene_file(file).modalities["b"].bands == (1,)
    file.write_text("name: town\nmodalities: {a: {files: a.npy, bands: [1, 2]}}")
    with pytest.raises(BadInput, match=r"modalities\.a\.bands: expected a list of bands such as"):
        read_scene_file(file)
