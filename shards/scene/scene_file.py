"""scene.yaml: what a user writes to describe a scene, read and checked before any data is opened."""

import difflib
import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shards.errors import BadInput
from shards.scene.names import ModalityName, SceneName
from shards.scene.sensors import known_sensor

LARGEST_CLASS_ID = 65535


class _NoTwins(yaml.SafeLoader):
    """YAML that refuses two keys of one name, where PyYAML silently keeps the last."""


def _mapping_without_twins(loader: _NoTwins, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for key in keys:
        if keys.count(key) > 1:
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} stands there twice", node.start_mark)
    return loader.construct_mapping(node, deep=True)


_NoTwins.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_twins)


def parse_bands(text: object) -> tuple[int, ...]:
    """Band numbers from 1, in the order given: ``"1-3,7"`` is (1, 2, 3, 7).

    Raises:
        ValueError: the text is no such list, or a band stands in it twice.
    """
    bands: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if match is None:
            raise ValueError(f"{text!r} is not a list of bands such as '1-91,100'")
        first, last = int(match[1]), int(match[2] or match[1])
        if first < 1 or last < first:
            raise ValueError(f"{part.strip()!r} is not a range of bands; bands count from 1, the lower one first")
        bands.extend(range(first, last + 1))
    if len(set(bands)) < len(bands):
        raise ValueError(f"{text!r} names a band twice")
    return tuple(bands)


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _with_commas(value: object) -> object:
    return ",".join(value) if isinstance(value, list) and all(isinstance(name, str) for name in value) else value


def _band_numbers_or_files(value: object) -> object:
    if isinstance(value, dict):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int)):  # the text of a list of aliases may fill memory
        raise ValueError("expected a list of bands such as '1-91,100', or the files of each band by its name")
    return parse_bands(value)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return value


def _scale(value: float) -> float:
    if _number(value) == 0:
        raise ValueError("0 would make every value the same")
    return value


# what a user may write, where it differs from what is kept, is named for the JSON Schema of scene.yaml
Text = Annotated[str, Field(min_length=1)]
_Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Files = Annotated[_Texts, BeforeValidator(_one_or_more, json_schema_input_type=Text | _Texts)]
ClassId = Annotated[int, Field(ge=0, le=LARGEST_CLASS_ID)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class WavelengthFile:
    """A vector of band centres, one value a band of the modality's file or one a chosen band.

    Attributes:
        files: the file that holds it.
        variable: inside the file, where it holds several.
        units: of the values, such as nm or um.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Files
    variable: Text | None = None
    units: Text = "nm"


@dataclass(frozen=True)
class ModalityFile:
    """One modality: its files, the bands wanted of them, and what the files do not say themselves.

    Attributes:
        files: paths or globs; absent where `bands` names the files of each band.
        variable: inside the file, where it holds several; a list, of a file that holds a variable a band.
        bands: the bands wanted (from 1), or for each band's name the files that hold it.
        stack: True: each file is a band. False: the files are a mosaic, and the first wins where one covers another.
            Absent: a mosaic whose files do not cover one another wholly.
        nodata: the value of missing pixels, as the files hold it; it takes the place of the files' own.
        scale, offset: physical value = scale * file value + offset, for files whose tags do not say it.
        crs: coordinate reference system of files that carry none, such as EPSG:32633.
        wavelengths: centre of each band in nanometres.
        sensor: what measured it, a key of `SENSORS`; gives wavelengths where neither files nor `wavelengths` do.
        surface_height: True where the values are heights above the ground, or heights of the surface itself with
            what stands on it; never for a terrain model.
        resample: how files on another grid are brought onto the first modality's, or within a stack onto the finest.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Files | None = None
    variable: Annotated[Text, BeforeValidator(_with_commas, json_schema_input_type=Text | _Texts)] | None = None
    bands: (
        Annotated[
            tuple[int, ...] | dict[Text, Files],
            BeforeValidator(_band_numbers_or_files, json_schema_input_type=Text | int | dict[Text, Files]),
        ]
        | None
    ) = None
    stack: bool | None = None
    nodata: float | None = None
    scale: Annotated[float, AfterValidator(_scale)] | None = None
    offset: Annotated[float, AfterValidator(_number)] | None = None
    crs: Text | None = None
    wavelengths: WavelengthFile | tuple[float, ...] | None = None
    sensor: Annotated[Text, AfterValidator(known_sensor)] | None = None
    surface_height: bool = False
    resample: Literal["nearest", "bilinear", "cubic", "average"] | None = None

    @model_validator(mode="after")
    def _check(self) -> "ModalityFile":
        if isinstance(self.bands, dict):
            if self.files is not None or self.stack is not None:
                raise ValueError("bands: names the files of each band, so that `files` and `stack` must be left out")
            if not self.bands:
                raise ValueError("bands: expected at least one band")
        elif self.files is None:
            raise ValueError("files: expected a path or a glob")
        return self


def _label_map(value: object) -> object:
    return {"files": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class LabelMap:
    """Where labels lie: a raster or array of ids, or polygons and points.

    Attributes:
        files: paths or globs of a raster or array of class ids.
        variable: inside the file, where it holds several.
        vectors: files of polygons or points.
        attribute: the features' attribute that names their class.
        layer: of a file that holds several.
        crs: coordinate reference system of files that carry none.
        all_touched: True: a polygon labels every pixel that it meets. False: those whose centres it holds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Files | None = None
    variable: Text | None = None
    vectors: Files | None = None
    attribute: Text | None = None
    layer: Text | None = None
    crs: Text | None = None
    all_touched: bool = False

    @model_validator(mode="after")
    def _check_places(self) -> "LabelMap":
        if self.files is not None and self.vectors is not None:
            raise ValueError("vectors: expected either `files` or `vectors`")
        return self


@dataclass(frozen=True)
class SplitFile:
    """The scene's official training and test pixels, as two label maps."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    train: Annotated[LabelMap, BeforeValidator(_label_map, json_schema_input_type=Text | LabelMap)]
    test: Annotated[LabelMap, BeforeValidator(_label_map, json_schema_input_type=Text | LabelMap)]

    @model_validator(mode="after")
    def _check(self) -> "SplitFile":
        for name, part in (("train", self.train), ("test", self.test)):
            if part.files is None and part.vectors is None:
                raise ValueError(f"{name}: expected `files` or `vectors`")
        return self


@dataclass(frozen=True)
class LabelsFile(LabelMap):
    """The label map and what its ids mean. Without files of its own it is the union of the official split.

    Polygons and points name their classes themselves; every other label map needs `classes`. What is unlabelled is
    what `ignore` lists and what the file calls nodata; 0 as well, unless it is a class.

    Attributes:
        classes: name of each class id.
        ignore: ids that are unlabelled.
        resample: brings a label map on another grid onto the scene's.
        descriptions: text that expands a class's name, by class id.
        split: official training and test pixels.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    classes: Annotated[dict[ClassId, Text], Field(min_length=1)] = field(default_factory=dict)
    ignore: tuple[int, ...] = ()
    resample: Literal["nearest"] | None = None
    descriptions: dict[ClassId, Text] = field(default_factory=dict)
    split: SplitFile | None = None

    @model_validator(mode="after")
    def _check(self) -> "LabelsFile":
        if self.files is None and self.vectors is None and self.split is None:
            raise ValueError("files: expected a label map, or an official split")
        if 0 in self.classes and LARGEST_CLASS_ID in self.classes:
            raise ValueError(f"classes: with a class 0, ids go up to {LARGEST_CLASS_ID - 1}")
        if both := sorted(set(self.ignore) & set(self.classes)):
            raise ValueError(f"ignore: class {both[0]} is both ignored and named")
        if self.classes and (unknown := sorted(set(self.descriptions) - set(self.classes))):
            raise ValueError(f"descriptions: class id {unknown[0]} is unknown; known: {sorted(self.classes)}")
        if len(set(self.classes.values())) < len(self.classes):
            raise ValueError("classes: two classes bear one name")
        return self


@dataclass(frozen=True)
class SceneFile:
    """A scene.yaml as a whole.

    Attributes:
        name: of the scene.
        modalities: each modality by a name of the user's; they keep their order.
        labels: absent for an unlabelled scene.
        crs: coordinate reference system of all files that carry none.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: SceneName
    modalities: Annotated[dict[ModalityName, ModalityFile], Field(min_length=1)]
    labels: LabelsFile | None = None
    crs: Text | None = None


_ADAPTER = TypeAdapter(SceneFile)


def read_scene_file(path: Path) -> SceneFile:
    """Reads a scene.yaml.

    Raises:
        BadInput: it is missing, no YAML, or a field is not as expected; the message names file and field.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoTwins)  # noqa: S506  a SafeLoader
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise BadInput(f"{path}: is not YAML: its brackets are nested too deeply") from error
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise BadInput(f"{path}: {_unknown_field(error) or first_fault(error)}") from error


# which fields are known at a place; names that a user chooses are written *
_FIELDS_OF: dict[tuple[str, ...], Any] = {
    (): SceneFile,
    ("modalities", "*"): ModalityFile,
    ("modalities", "*", "wavelengths"): WavelengthFile,
    ("labels",): LabelsFile,
    ("labels", "split"): SplitFile,
    ("labels", "split", "train"): LabelMap,
    ("labels", "split", "test"): LabelMap,
}


def _unknown_field(error: ValidationError) -> str | None:
    """The first field that is not known, with the nearest that is; None where all are known."""
    for fault in error.errors(include_url=False):
        if fault["type"] == "unexpected_keyword_argument":
            *place, name = [str(part) for part in fault["loc"] if not _is_union_branch(part)]
            known = _FIELDS_OF.get(("modalities", "*", *place[2:]) if place[:1] == ["modalities"] else tuple(place))
            names = [one.name for one in fields(known)] if known is not None else []
            near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            hint = f"; did you mean `{near[0]}`?" if near else ""
            return f"{'.'.join([*place, name])}: unknown field{hint} (known: {', '.join(names)})"
    return None


def _is_union_branch(part: object) -> bool:
    """Whether a part of pydantic's path names a branch of a union; users know only the fields."""
    return bool(re.search(r"\[|^[A-Z][a-z]+[A-Z]", str(part))) and "'" not in str(part)


def first_fault(error: ValidationError) -> str:
    """The first fault pydantic found, as ``field.field: what was expected``."""
    fault = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in fault["loc"] if not _is_union_branch(part))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_type" and isinstance(fault["input"], bool | int | float):
        message += f", found {fault['input']}; YAML reads some words and all numbers as such: write it in quotes"
    return f"{place}: {message}" if place else message
