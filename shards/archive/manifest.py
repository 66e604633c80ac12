"""manifest.json: the records of an archive's scenes, tiles and files, and how they are read and written.

Format version 1 lists every tile and every file. Format version 2, for archives of many, keeps them in tables beside
the manifest (`manifest_tables`), so that the manifest stays small; their hashes are part of it.
"""

import hashlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from shards.errors import DamagedArchive
from shards.scene.names import ModalityName, SceneName
from shards.scene.scene_file import first_fault

LISTED_VERSION = 1  # tiles and files in the manifest itself
TABLED_VERSION = 2  # in tables beside it
MANIFEST_NAME = "manifest.json"
SCENES_FOLDER = "scenes"
TILES_FOLDER = "tiles"

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


def inside_archive(path: str) -> str:
    """The path itself, if it stays inside the archive's folder and has only this one spelling.

    Raises:
        ValueError: it is absolute, has an empty part, `.`, `..`, a backslash or a control character.
    """
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts) or re.search(r"[\\\x00-\x1f:]", path):
        raise ValueError(f"{path!r} is not a plain relative path inside the archive")
    return path


InsidePath = Annotated[str, AfterValidator(inside_archive)]
Size = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
# JSON knows no NaN; pydantic writes it as null
MissingValue = Annotated[
    int | Annotated[float, Field(allow_inf_nan=True)],
    BeforeValidator(lambda value: math.nan if value is None else value, json_schema_input_type=int | float | None),
]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class FileRecord:
    """A file of the archive: path relative to it, size, hash, and how many tiles (tar) it holds."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    path: InsidePath
    bytes: Count
    sha256: Sha256
    samples: Count


@dataclass(frozen=True)
class ScalingRecord:
    """Scale and offset that were applied on reading: stored value = scale * file value + offset.

    Attributes:
        files: how many files of the modality carry these.
        scale: one a band.
        offset: one a band.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Size
    scale: tuple[float, ...]
    offset: tuple[float, ...]


@dataclass(frozen=True)
class ModalityRecord:
    """One modality of a scene.

    Attributes:
        name: the user's name for it.
        bands: number of bands.
        dtype: dtype of the values as stored.
        wavelengths_nm: centre of each band, where known.
        fwhm_nm: full width at half maximum of each band, where known.
        bad_bands: bands (from 1) that the files mark as bad.
        mean: per band over valid pixels.
        std: standard deviation per band over valid pixels, above 0; 1 for a constant band, so that dividing is safe.
        constant_bands: bands (from 1) that hold one value in every valid pixel.
        valid_pixels: pixels valid in this modality.
        missing_value: what a missing pixel holds in every band; NaN for floats.
        band_names: name of each band, where files were stacked as bands.
        scalings: scales and offsets that were applied on reading; empty where values are stored as the files hold them.
        sensor: what measured it, where the user says so.
        surface_height: True where its values are heights above the ground, or of a surface with what stands on it.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: ModalityName
    bands: Size
    dtype: Annotated[str, Field(pattern="^(u?int(8|16|32|64)|float(16|32|64))$")]
    wavelengths_nm: tuple[float, ...] | None
    fwhm_nm: tuple[float, ...] | None
    bad_bands: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    constant_bands: tuple[int, ...]
    valid_pixels: Size
    missing_value: MissingValue
    band_names: tuple[str, ...] | None = None
    scalings: tuple[ScalingRecord, ...] = ()
    sensor: str | None = None
    surface_height: bool = False


@dataclass(frozen=True)
class TileRecord:
    """A tile: where it lies in its tar, and which pixels of the scene are its core. The halo lies around the core.

    Attributes:
        scene: name of its scene.
        key: WebDataset key of its sample.
        path: the tar, relative to the archive.
        offset: where the sample begins in the tar, in bytes.
        bytes: size of the sample in the tar, headers and padding included.
        row, col: first pixel of the core.
        height, width: size of the core; smaller than the tile size at the scene's lower and right edges.
        valid_pixels: core pixels valid in at least one modality, never 0.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    scene: str
    key: str
    path: InsidePath
    offset: Count
    bytes: Size
    row: Count
    col: Count
    height: Size
    width: Size
    valid_pixels: Size


@dataclass(frozen=True)
class SceneRecord:
    """A scene: grid, modalities, classes, tiles, and the settings it was built with.

    See `shards.scene.source` and `shards.archive.tiling.ArchiveSettings` for the meaning of what it repeats.

    Attributes:
        tiles: in the order in which they were built; empty in the text of format version 2.
        class_id_shift: stored class id minus the user's; 1 where 0 is a class, since 0 stands for unlabelled here.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: SceneName
    height: Size
    width: Size
    modalities: Annotated[tuple[ModalityRecord, ...], Field(min_length=1)]
    crs_wkt: str | None
    transform: tuple[float, float, float, float, float, float] | None
    classes: dict[int, str]
    descriptions: dict[int, str]
    official_split: bool
    generated: bool
    tile_size: Size
    halo: Count
    samples_per_shard: Size
    kept_bits: Annotated[int, Field(ge=1)] | None
    tiles: Annotated[Sequence[TileRecord], AfterValidator(tuple)]
    class_id_shift: Annotated[int, Field(ge=0, le=1)] = 0

    def modality(self, name: str) -> ModalityRecord:
        """The modality of that name; KeyError where there is none."""
        for record in self.modalities:
            if record.name == name:
                return record
        raise KeyError(name)

    @property
    def zarr_path(self) -> str:
        """The scene's Zarr group, relative to the archive."""
        return f"{SCENES_FOLDER}/{self.name}.zarr"


@dataclass(frozen=True)
class TablesRecord:
    """The tables of tiles and files that lie beside a manifest of format version 2.

    Attributes:
        tiles: number of tiles by scene; a scene's tiles stand together, in the order of the scenes.
        files: number of files.
        columns: a NumPy file each, by name: ``tiles.key`` has field ``key`` of every `TileRecord`, ``files.path`` that
            of every `FileRecord`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    tiles: dict[SceneName, Count]
    files: Size
    columns: dict[str, FileRecord]


@dataclass(frozen=True)
class Manifest:
    """What an archive holds. The fingerprint is a hash over the rest of the manifest, file hashes included.

    Attributes:
        files: every file but the manifest and the tables; empty in the text of format version 2.
        tables: of format version 2 alone.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    format_version: Annotated[int, Field(ge=1)]
    fingerprint: Sha256
    scenes: Annotated[tuple[SceneRecord, ...], Field(min_length=1)]
    files: Annotated[Sequence[FileRecord], AfterValidator(tuple)]
    tables: TablesRecord | None = None


_ADAPTER = TypeAdapter(Manifest)


def new_manifest(
    scenes: tuple[SceneRecord, ...], files: tuple[FileRecord, ...], tables: TablesRecord | None = None
) -> Manifest:
    """A manifest of these scenes and files, with its fingerprint. It sorts both.

    Args:
        scenes: of the archive.
        files: all of them.
        tables: of all tiles and files, if they are to stay out of the manifest's text.
    """
    ordered_files = tuple(sorted(files, key=lambda record: record.path))
    ordered_scenes = tuple(sorted(scenes, key=lambda record: record.name))
    version = LISTED_VERSION if tables is None else TABLED_VERSION
    bare = Manifest(version, "0" * 64, ordered_scenes, ordered_files, tables)
    return replace(bare, fingerprint=_fingerprint(_plain(bare)))


def write_manifest(manifest: Manifest) -> bytes:
    """The manifest as JSON text, the same bytes for the same manifest."""
    return _text(_plain(manifest))


def read_manifest(content: bytes, archive: str) -> Manifest:
    """Reads and checks a manifest; of format version 2, the manifest without tiles and files.

    Args:
        content: bytes of manifest.json.
        archive: the archive's location, for messages.

    Raises:
        DamagedArchive: it is no manifest, is of a newer version, does not fit its fingerprint, or contradicts itself.
    """

    def damaged(fault: str) -> DamagedArchive:
        return DamagedArchive(archive, (f"{MANIFEST_NAME}: {fault}",))

    try:
        plain = json.loads(content, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise damaged(f"is not JSON: {error}") from error
    version = plain.get("format_version") if isinstance(plain, dict) else None
    if not isinstance(version, int) or version < 1:
        raise damaged("carries no format version")
    if version > TABLED_VERSION:
        raise damaged(f"format version {version} is newer than {TABLED_VERSION}, the newest known here")
    try:
        manifest = _ADAPTER.validate_python(plain)
    except ValidationError as error:
        raise damaged(first_fault(error)) from error
    if plain["fingerprint"] != _fingerprint(plain):
        raise damaged("its fingerprint does not fit its content; it was changed after it was written")
    if fault := _contradiction(manifest):
        raise damaged(fault)
    return manifest


def is_as_written(content: bytes) -> bool:
    """Whether the bytes of a valid manifest are those that `write_manifest` wrote.

    The fingerprint covers the content. This covers the rest: blanks, line ends, the order of fields, how a number is
    written. Together they tell any changed byte. The order of the entries in a scene's table of classes is left free.
    """
    plain = json.loads(content)
    return _text(plain) == content and _in_order(plain, _plain(_ADAPTER.validate_python(plain)))


def _in_order(plain: Any, written: Any) -> bool:
    """Whether the fields of a JSON value stand in the order in which they are written."""
    if isinstance(plain, dict):
        expected = [key for key in written if key in plain]
        return list(plain) == expected and all(_in_order(plain[key], written[key]) for key in plain)
    if isinstance(plain, list):
        return all(_in_order(*pair) for pair in zip(plain, written, strict=True))
    return True


def _text(plain: dict[str, Any]) -> bytes:
    return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not JSON")


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON values. Fields that came after the first release are left out where they say nothing."""
    if manifest.tables is not None:
        scenes = tuple(replace(scene, tiles=()) for scene in manifest.scenes)
        manifest = replace(manifest, scenes=scenes, files=())
    plain: dict[str, Any] = json.loads(_ADAPTER.dump_json(manifest))
    _leave_out(plain, "tables", None)
    for scene in plain["scenes"]:
        _leave_out(scene, "class_id_shift", 0)
        for modality in scene["modalities"]:
            _leave_out(modality, "band_names", None)
            _leave_out(modality, "scalings", [])
            _leave_out(modality, "sensor", None)
            _leave_out(modality, "surface_height", False)
    return plain


def _leave_out(record: dict[str, Any], key: str, default: object) -> None:
    if record[key] == default:
        del record[key]


def _fingerprint(plain: dict[str, Any]) -> str:
    rest = {key: value for key, value in plain.items() if key != "fingerprint"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _contradiction(manifest: Manifest) -> str | None:
    """What contradicts itself in a manifest's text; None if nothing does."""
    tables = manifest.tables
    if (manifest.format_version == TABLED_VERSION) != (tables is not None):
        return f"format version {manifest.format_version} {'with' if tables is not None else 'without'} tables"
    if bool(manifest.files) == (tables is not None):
        return "lists no file" if tables is None else "lists files beside its tables"
    sizes = {record.path: record.bytes for record in manifest.files}
    if len(sizes) < len(manifest.files):
        return "a file is listed twice"
    if len({scene.name for scene in manifest.scenes}) < len(manifest.scenes):
        return "two scenes bear one name"
    if tables is not None and set(tables.tiles) != {scene.name for scene in manifest.scenes}:
        return "its tables are not of its scenes"
    for scene in manifest.scenes:
        if tables is not None and scene.tiles:
            return f"{scene.name}: lists tiles beside the tables"
        for modality in scene.modalities:
            lengths = {len(modality.mean), len(modality.std), modality.bands}
            per_band = [modality.wavelengths_nm, modality.fwhm_nm, modality.band_names]
            per_band += [values for applied in modality.scalings for values in (applied.scale, applied.offset)]
            lengths |= {len(known) for known in per_band if known is not None}
            if len(lengths) > 1:
                return f"{scene.name}: {modality.name}: as many values a band as it has bands are expected"
            if not all(std > 0 for std in modality.std):
                return f"{scene.name}: {modality.name}: a standard deviation that is not above 0"
        keys = set()
        for tile in scene.tiles:
            if tile.scene != scene.name or tile.key in keys:
                return f"{scene.name}: tile {tile.key} is listed twice or under another scene"
            keys.add(tile.key)
            if tile.offset + tile.bytes > sizes.get(tile.path, 0):
                return f"{scene.name}: tile {tile.key} lies beyond the end of {tile.path}"
            inside = tile.row + tile.height <= scene.height and tile.col + tile.width <= scene.width
            if not inside or max(tile.height, tile.width) > scene.tile_size:
                return f"{scene.name}: tile {tile.key} does not lie in the scene"
            if tile.valid_pixels > tile.height * tile.width:
                return f"{scene.name}: tile {tile.key} has more valid pixels than pixels"
    return None
