"""What a scene's bytes on disk cost and gain: every codec tried on every scene, what was chosen, and the halo."""

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import zarr
from archive_tasks import houston_like
from report import Row, median_row
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ZstdCodec
from zarr.codecs.numcodecs import Delta, PCodec, Shuffle
from zarr.errors import ZarrUserWarning
from zarr.storage import MemoryStore

from shards.archive.archive import Archive
from shards.archive.codecs import BLOCK_BYTES, LEVEL, chunk_codecs
from shards.archive.manifest import Manifest
from shards.archive.missing import valid_mask
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene
from shards.scene.source import Mask, SceneSource, Values

CHUNK: Final = 64
MIB: Final = 1 << 20
CHOSEN: Final = f"blosc(zstd {LEVEL}, byte shuffle, {BLOCK_BYTES // MIB} MiB)"


@dataclass(frozen=True)
class Sample:
    """One modality of one scene, as an archive holds it."""

    name: str
    values: Values
    valid: Mask


def candidates(dtype: np.dtype[Any]) -> dict[str, dict[str, Any]]:
    """Name to what zarr's `create_array` is given; the names of codecs outside the specification end with a star."""
    size = dtype.itemsize

    def blosc(name: str, level: int, shuffle: str, block: int = 0) -> dict[str, Any]:
        named: dict[str, Any] = {"cname": name, "shuffle": shuffle}
        return _chain(BloscCodec(**named, clevel=level, typesize=size, blocksize=block))

    found = {
        "none": _chain(),
        "zstd 3": _chain(ZstdCodec(level=3)),
        "blosc(lz4 5, bit shuffle)": blosc("lz4", 5, "bitshuffle"),
        "blosc(zstd 1, byte shuffle)": blosc("zstd", 1, "shuffle"),
        "blosc(zstd 1, bit shuffle, 1 MiB)": blosc("zstd", 1, "bitshuffle", MIB),
        "blosc(zstd 3, byte shuffle, 1 MiB)": blosc("zstd", 3, "shuffle", MIB),
        "blosc(zstd 5, byte shuffle)": blosc("zstd", 5, "shuffle"),
        "blosc(zstd 5, byte shuffle, 1 MiB)": blosc("zstd", 5, "shuffle", MIB),
        "shuffle, zstd 3 *": _chain(ZstdCodec(level=3), filters=[], before=[Shuffle(elementsize=size)]),
        "pcodec 8 *": {**_chain(), "serializer": PCodec(level=8)},
    }
    serializer, compressor, checksum = chunk_codecs(dtype)
    found[CHOSEN] = {"serializer": serializer, "compressors": [compressor, checksum], "filters": None}
    if dtype.kind in "iu":
        delta = [Delta(dtype=dtype.str)]
        found["delta along bands, blosc(zstd 1, byte shuffle, 1 MiB) *"] = {
            **blosc("zstd", 1, "shuffle", MIB),
            "filters": delta,
        }
    return found


def _chain(*compressors: Any, filters: Sequence[Any] | None = None, before: Sequence[Any] = ()) -> dict[str, Any]:
    return {
        "serializer": BytesCodec(),
        "compressors": [*before, *compressors, Crc32cCodec()],
        "filters": list(filters) if filters else None,
    }


def codec_rows(samples: Sequence[Sample], repeats: int) -> list[Row]:
    """One row a codec and sample: bytes on disk over raw bytes of valid pixels, and speeds."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=ZarrUserWarning)  # that a codec is outside the specification
        return [
            median_row([tried(sample, codec, how) for _ in range(repeats + 1)][1:])
            for sample in samples
            for codec, how in candidates(sample.values.dtype).items()
        ]


def by_codec(rows: Sequence[Row]) -> list[Row]:
    """One row a codec that was tried on every sample: geometric means over the samples, the smallest first."""
    samples = {row["sample"] for row in rows}
    found: list[Row] = []
    for codec in dict.fromkeys(str(row["codec"]) for row in rows):
        of_codec = [row for row in rows if row["codec"] == codec]
        if len(of_codec) == len(samples):
            keys = ("disk_over_raw_ratio", "encode_mb_per_s", "decode_mb_per_s")
            means = {
                key: math.exp(math.fsum(math.log(float(str(r[key]))) for r in of_codec) / len(samples)) for key in keys
            }
            found.append({"codec": codec, "chosen": codec == CHOSEN, "samples": len(samples), **means})
    return sorted(found, key=lambda row: float(str(row["disk_over_raw_ratio"])))


def tried(sample: Sample, codec: str, how: Mapping[str, Any]) -> Row:
    """Writes and reads a sample once, in memory, and makes sure that nothing is lost."""
    values, store = sample.values, MemoryStore()
    chunk = tuple(min(CHUNK, side) for side in values.shape[:2])
    array = zarr.create_array(
        store, shape=values.shape, dtype=values.dtype, chunks=(*chunk, values.shape[2]), fill_value=0, **how
    )
    start = time.perf_counter()
    array[...] = values
    middle = time.perf_counter()
    read = np.asarray(array[...])
    end = time.perf_counter()
    if not np.array_equal(read, values, equal_nan=values.dtype.kind == "f"):
        raise ValueError(f"{codec}: what was read from {sample.name} is not what was written")
    on_disk = sum(len(piece.to_bytes()) for key, piece in store._store_dict.items() if "zarr.json" not in key)
    valid_bytes = int(np.count_nonzero(sample.valid)) * values.shape[2] * values.dtype.itemsize
    return {
        "part": "codecs",
        "sample": sample.name,
        "dtype": str(values.dtype),
        "codec": codec,
        "chosen": codec == CHOSEN,
        "disk_over_raw_ratio": on_disk / valid_bytes,
        "encode_mb_per_s": values.nbytes / 1e6 / (middle - start),
        "decode_mb_per_s": values.nbytes / 1e6 / (end - middle),
    }


def samples_of(scratch: Path, side: int, real: Path | None) -> list[Sample]:
    """The generated scene, and the real ones where they are at hand."""
    sources: list[SceneSource] = [houston_like(side)]
    if real is not None:
        sources += [open_scene(str(real / name)) for name in ("enmap_potsdam", "s2_dem", "unlabelled/aviris.yaml")]
    build_archive(sources, scratch / "codecs", ArchiveSettings())
    archive = Archive.open(scratch / "codecs")
    samples = []
    for record in archive.manifest.scenes:
        scene = archive.read_scene(record.name)
        for modality in record.modalities:
            values = scene.values[modality.name]
            valid = valid_mask(values, modality.missing_value)
            samples.append(Sample(f"{record.name} {modality.name}", values, valid))
    return samples


def footprint_rows(scratch: Path, side: int) -> list[Row]:
    """Bytes of a whole archive over those of its valid pixels, for several halos and tile sizes."""
    rows: list[Row] = []
    for tile_size, halo in ((64, 7), (64, 5), (64, 0), (128, 7), (32, 7)):
        settings = ArchiveSettings(tile_size, halo)
        manifest = build_archive([houston_like(side)], scratch / f"footprint-{tile_size}-{halo}", settings)
        raw = raw_bytes(manifest)
        scenes, tiles = (
            sum(file.bytes for file in manifest.files if file.path.startswith(folder))
            for folder in ("scenes/", "tiles/")
        )
        rows.append(
            {
                "part": "footprint",
                "tile_size_pixels": tile_size,
                "halo_pixels": halo,
                "largest_window_pixels": 2 * halo + 1,
                "scene_over_raw_ratio": scenes / raw,
                "tiles_over_raw_ratio": tiles / raw,
                "halo_over_raw_ratio": (tile_size + 2 * halo) ** 2 / tile_size**2 - 1,
            }
        )
    return rows


def raw_bytes(manifest: Manifest) -> int:
    """Bytes of the valid pixels of an archive, uncompressed."""
    return sum(
        modality.valid_pixels * modality.bands * np.dtype(modality.dtype).itemsize
        for scene in manifest.scenes
        for modality in scene.modalities
    )
