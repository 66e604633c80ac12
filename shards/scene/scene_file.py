"""scene.yaml: what a user writes to describe a scene, read and checked before any data is opened."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import yaml
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from shards.errors import BadInput
from shards.scene.names import ModalityName, SceneName

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


Files = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], BeforeValidator(_one_or_more), Field(min_length=1)]
ClassId = Annotated[int, Field(ge=0, le=LARGEST_CLASS_ID)]
Text = Annotated[str, Field(min_length=1)]
_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class WavelengthFile:
    """A vector of band centres, one value a band of the modality's file or one a chosen band."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Files
    variable: Text | None = None
    units: Text = "nm"


@dataclass(frozen=True)
class ModalityFile:
    """One modality: its files, the bands wanted of them, and what the files do not say themselves."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    files: Files
    variable: Text | None = None
    bands: Annotated[tuple[int, ...], BeforeValidator(parse_bands)] | None = None
    nodata: float | None = None
    wavelengths: WavelengthFile | tuple[float, ...] | None = None
    resample: Literal["nearest", "bilinear", "cubic", "average"] | None = None


def _label_map(value: object) -> object:
    return {"files": value} if isinstance(value, str) else value


@dataclass(frozen=True)
class LabelMap:
    """Where labels lie: a raster or array of ids (`files` and, inside .mat, a variable), or polygons and points."""

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
    train: Annotated[LabelMap, BeforeValidator(_label_map)]
    test: Annotated[LabelMap, BeforeValidator(_label_map)]

    @model_validator(mode="after")
    def _check(self) -> "SplitFile":
        for name, part in (("train", self.train), ("test", self.test)):
            if part.files is None and part.vectors is None:
                raise ValueError(f"{name}: expected `files` or `vectors`")
        return self


@dataclass(frozen=True)
class LabelsFile(LabelMap):
    """The label map and what its ids mean. Without files of its own it is the union of the official split.

    Polygons and points name their classes themselves; every other label map needs `classes`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    classes: Annotated[dict[ClassId, Text], Field(min_length=1)] = field(default_factory=dict)
    ignore: tuple[int, ...] = (0,)
    resample: Literal["nearest"] | None = None
    descriptions: dict[ClassId, Text] = field(default_factory=dict)
    split: SplitFile | None = None

    @model_validator(mode="after")
    def _check(self) -> "LabelsFile":
        if self.files is None and self.vectors is None and self.split is None:
            raise ValueError("files: expected a label map, or an official split")
        if 0 in self.classes:
            raise ValueError("classes: 0 means unlabelled and cannot be a class; number the classes from 1")
        if both := sorted(set(self.ignore) & set(self.classes)):
            raise ValueError(f"ignore: class {both[0]} is both ignored and named")
        if self.classes and (unknown := sorted(set(self.descriptions) - set(self.classes))):
            raise ValueError(f"descriptions: class id {unknown[0]} is unknown; known: {sorted(self.classes)}")
        if len(set(self.classes.values())) < len(self.classes):
            raise ValueError("classes: two classes bear one name")
        return self


@dataclass(frozen=True)
class SceneFile:
    """A scene.yaml as a whole; the modalities keep their order."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: SceneName
    modalities: Annotated[dict[ModalityName, ModalityFile], Field(min_length=1)]
    labels: LabelsFile | None = None


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
    try:
        return _ADAPTER.validate_python(content)
    except ValidationError as error:
        raise BadInput(f"{path}: {first_fault(error)}") from error


def first_fault(error: ValidationError) -> str:
    """The first fault pydantic found, as ``field.field: what was expected``."""
    fault = error.errors(include_url=False)[0]
    # pydantic names the alternatives of a union inside the path; users know only the fields
    place = ".".join(str(part) for part in fault["loc"] if not re.search(r"[\[\]A-Z]", str(part)) or "'" in str(part))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
