"""A scene described by a scene.yaml, checked whole and then read block by block."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shards.errors import BadInput
from shards.scene.readers.arrays import read_vector
from shards.scene.readers.layer import Affine6, Grid, Layer, nodata_as
from shards.scene.readers.open_layer import find_files, open_layer
from shards.scene.readers.raster import same_crs
from shards.scene.readers.resampled import resample
from shards.scene.readers.spectral_tags import nm_per_unit
from shards.scene.readers.vectors import VectorSource, are_vectors, classes_of, open_vectors
from shards.scene.scene_file import LabelMap, ModalityFile, SceneFile, WavelengthFile, read_scene_file
from shards.scene.source import Classes, Labels, Mask, Modality, Values

# rows read at once when a whole label map is checked
CHECK_ROWS = 512
# pixels; two modalities whose corners differ by less lie on one grid
GRID_TOLERANCE = 0.01


@dataclass(frozen=True)
class LabelLayer:
    """A label map in a file and the ids that may stand in it."""

    layer: Layer
    known: frozenset[int]
    ignored: frozenset[int]

    def read(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); what is ignored, nodata or covered by no file is 0.

        Raises:
            BadInput: an id is neither a class nor ignored, or not a whole number.
        """
        values, valid = self.layer.read(rows, cols, (1,))
        ids = np.where(valid, values[..., 0], 0)
        for value in np.unique(ids[valid]).tolist():
            if value in self.ignored:
                ids[ids == value] = 0
            elif value not in self.known:
                raise BadInput(
                    f"{self.layer.files}: labels: unknown class id {value:g}; expected one of "
                    f"{sorted(self.known)} or one of `ignore` {sorted(self.ignored)}"
                )
        return ids.astype(np.uint16)


@dataclass(frozen=True)
class FileScene:
    """A `SceneSource` over files; it holds no open file and can be sent to another process."""

    name: str
    grid: Grid
    modalities: tuple[Modality, ...]
    layers: dict[str, tuple[Layer, tuple[int, ...]]]
    classes: Classes | None
    labels: LabelLayer | None
    split: tuple[LabelLayer, LabelLayer] | None
    generated: bool = field(default=False, init=False)

    @property
    def identity(self) -> str:
        """What was asked of which files, with their sizes and times."""
        maps = [label.layer for label in (self.labels, *(self.split or ())) if label is not None]
        layers = [layer for layer, _ in self.layers.values()] + maps
        stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for layer in layers for path in layer.paths]
        return f"{self!r} {stamps}"

    @property
    def height(self) -> int:
        return self.grid.height

    @property
    def width(self) -> int:
        return self.grid.width

    @property
    def crs_wkt(self) -> str | None:
        return self.grid.crs_wkt

    @property
    def transform(self) -> Affine6 | None:
        return self.grid.transform

    def read(self, modality: str, rows: slice, cols: slice) -> tuple[Values, Mask]:
        """Values (row, col, band) of one modality and where they are valid (row, col)."""
        layer, bands = self.layers[modality]
        return layer.read(rows, cols, bands)

    def read_labels(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col); 0 is unlabelled. Without a label map of its own, the union of the split."""
        if self.labels is not None:
            return self.labels.read(rows, cols)
        if self.split is None:
            return np.zeros((rows.stop - rows.start, cols.stop - cols.start), dtype=np.uint16)
        train, test = self.read_split(rows, cols)
        return np.maximum(train, test)

    def read_split(self, rows: slice, cols: slice) -> tuple[Labels, Labels]:
        """The official training and test maps (row, col)."""
        assert self.split is not None
        return self.split[0].read(rows, cols), self.split[1].read(rows, cols)


def open_scene_file(path: Path) -> FileScene:
    """Opens the scene that a scene.yaml describes.

    Raises:
        BadInput: a field, a file or an agreement between files is not as expected; one line names file and fault.
    """
    described = read_scene_file(path)
    layers: dict[str, tuple[Layer, tuple[int, ...]]] = {}
    modalities: list[Modality] = []
    for name, spec in described.modalities.items():
        field_name = f"modalities.{name}"
        layer = open_layer(find_files(path.parent, spec.files, field_name), spec.variable, spec.nodata, field_name)
        if spec.resample is not None and layers:
            layer = resample(layer, next(iter(layers.values()))[0].grid, spec.resample, field_name)
        bands = _bands(spec, layer, field_name)
        layers[name] = (layer, bands)
        modalities.append(_modality(name, spec, layer, bands, path.parent))
    grid = _common_grid({name: layer for name, (layer, _) in layers.items()})
    scene = _with_labels(described, path, grid, tuple(modalities), layers)
    _check_labels(scene, path)
    return scene


def _bands(spec: ModalityFile, layer: Layer, field_name: str) -> tuple[int, ...]:
    bands = spec.bands or tuple(range(1, layer.bands + 1))
    if max(bands) > layer.bands:
        raise BadInput(f"{layer.files}: {field_name}.bands: band {max(bands)} is out of range; it has {layer.bands}")
    return bands


def _modality(name: str, spec: ModalityFile, layer: Layer, bands: tuple[int, ...], folder: Path) -> Modality:
    wavelengths = _chosen(layer.wavelengths_nm, bands)
    if spec.wavelengths is not None:
        wavelengths = _given_wavelengths(spec.wavelengths, layer, bands, folder, f"modalities.{name}.wavelengths")
    nodata = None
    if layer.nodata is not None and np.issubdtype(layer.dtype, np.integer):
        marker = nodata_as(layer.nodata, layer.dtype)
        nodata = None if marker is None else int(marker)
    bad = tuple(place for place, band in enumerate(bands, start=1) if band in layer.bad_bands)
    return Modality(name, len(bands), layer.dtype.name, wavelengths, _chosen(layer.fwhm_nm, bands), bad, nodata)


def _chosen(values: tuple[float, ...] | None, bands: tuple[int, ...]) -> tuple[float, ...] | None:
    return None if values is None else tuple(values[band - 1] for band in bands)


def _given_wavelengths(
    given: WavelengthFile | tuple[float, ...], layer: Layer, bands: tuple[int, ...], folder: Path, field_name: str
) -> tuple[float, ...]:
    if isinstance(given, WavelengthFile):
        paths = find_files(folder, given.files, field_name)
        if len(paths) > 1:
            raise BadInput(f"{paths[1]}: {field_name}: expected one file, found {len(paths)}")
        factor = nm_per_unit(given.units, f"{paths[0]}: {field_name}")
        values, where = tuple(float(value) * factor for value in read_vector(paths[0], given.variable)), str(paths[0])
    else:
        values, where = given, layer.files
    if len(values) == layer.bands:
        values = tuple(values[band - 1] for band in bands)
    if len(values) != len(bands):
        raise BadInput(f"{where}: {field_name}: {len(values)} values, expected {len(bands)} (one a band)")
    if not all(np.isfinite(value) and value > 0 for value in values):
        raise BadInput(f"{where}: {field_name}: expected positive numbers of nanometres")
    return values


def _common_grid(layers: dict[str, Layer]) -> Grid:
    """The one grid of all layers, with the georeference of the first that carries one."""
    (first_name, first), *others = layers.items()
    georeferenced = first
    for name, layer in others:
        check_same_grid(first, layer, f"modalities.{name}", first_name)
        if georeferenced.grid.transform is None:
            georeferenced = layer
        elif layer.grid.transform is not None:
            check_same_grid(georeferenced, layer, f"modalities.{name}", first_name)
    return georeferenced.grid


def check_same_grid(first: Layer, layer: Layer, field_name: str, first_name: str) -> None:
    """Refuses a layer that does not lie, pixel on pixel, on the first one.

    Raises:
        BadInput: shape, CRS or transform differ.
    """
    one, other = first.grid, layer.grid
    start = f"{layer.files}: {field_name}:"
    if (other.height, other.width) != (one.height, one.width):
        raise BadInput(
            f"{start} {other.height}x{other.width} pixels, expected the grid of {first_name}, {one.height}x{one.width}"
        )
    if one.transform is None or other.transform is None:
        return
    if not same_crs(one.crs_wkt, other.crs_wkt):
        raise BadInput(f"{start} another CRS than {first_name}")
    pixel = max(abs(one.transform[0]), abs(one.transform[1]), abs(one.transform[3]), abs(one.transform[4]))
    corners = np.array([[0, 0, 1], [one.width, 0, 1], [0, one.height, 1]], dtype=np.float64)
    moved = corners @ (np.array(other.transform) - np.array(one.transform)).reshape(2, 3).T
    if np.abs(moved).max() > GRID_TOLERANCE * pixel:
        raise BadInput(f"{start} another grid (origin or resolution) than {first_name}")


def _with_labels(
    described: SceneFile,
    path: Path,
    grid: Grid,
    modalities: tuple[Modality, ...],
    layers: dict[str, tuple[Layer, tuple[int, ...]]],
) -> FileScene:
    spec = described.labels
    if spec is None:
        return FileScene(described.name, grid, modalities, layers, None, None, None)
    first_name, (first, _) = next(iter(layers.items()))
    ignored = frozenset({0, *spec.ignore})
    maps: dict[str, LabelMap] = {}
    if spec.files is not None or spec.vectors is not None:
        maps["labels"] = spec
    if spec.split is not None:
        maps |= {"labels.split.train": spec.split.train, "labels.split.test": spec.split.test}
    vectors = {name: source for name, place in maps.items() if (source := _vector_source(place, path.parent, name))}
    if not spec.classes and len(vectors) < len(maps):
        raise BadInput(f"{path}: labels.classes: expected what the ids mean, such as classes: {{1: water, 2: forest}}")
    classes = spec.classes or classes_of(vectors.values(), ignored)
    if unknown := sorted(set(spec.descriptions) - set(classes)):
        raise BadInput(f"{path}: labels.descriptions: class id {unknown[0]} is unknown; known: {sorted(classes)}")

    def label_layer(name: str, place: LabelMap) -> LabelLayer:
        if name in vectors:
            layer: Layer = open_vectors(vectors[name], grid, classes, ignored)
            return LabelLayer(layer, frozenset(classes), ignored)
        field_name = "labels.files" if name == "labels" else name
        layer = open_layer(find_files(path.parent, place.files or (), field_name), place.variable, None, field_name)
        if layer.bands != 1:
            raise BadInput(f"{layer.files}: {field_name}: {layer.bands} bands, expected one band of class ids")
        if spec.resample is not None:
            layer = resample(layer, first.grid, spec.resample, field_name)
        check_same_grid(first, layer, field_name, first_name)
        return LabelLayer(layer, frozenset(classes), ignored)

    opened = {name: label_layer(name, place) for name, place in maps.items()}
    split = None
    if spec.split is not None:
        split = (opened["labels.split.train"], opened["labels.split.test"])
    meaning = Classes(dict(sorted(classes.items())), dict(sorted(spec.descriptions.items())), spec.split is not None)
    return FileScene(described.name, grid, modalities, layers, meaning, opened.get("labels"), split)


def _vector_source(place: LabelMap, folder: Path, field_name: str) -> VectorSource | None:
    """The features that a label map names; None for a raster or an array."""
    paths = find_files(folder, place.vectors or place.files or (), field_name)
    if place.vectors is None and not are_vectors(paths):
        if place.attribute is not None or place.layer is not None:
            raise BadInput(
                f"{paths[0]}: {field_name}: holds no polygons or points that `attribute` and `layer` could choose"
            )
        return None
    return VectorSource(paths, place.attribute, place.layer, place.crs, place.all_touched, field_name)


def _check_labels(scene: FileScene, path: Path) -> None:
    """Reads the label maps once, so that an unknown id or an empty map is refused before anything is written."""
    if scene.classes is None:
        return
    labelled = 0
    for start in range(0, scene.height, CHECK_ROWS):
        rows, cols = slice(start, min(start + CHECK_ROWS, scene.height)), slice(0, scene.width)
        labelled += int(np.count_nonzero(scene.read_labels(rows, cols)))
        if scene.split is not None:
            train, test = scene.read_split(rows, cols)
            both = np.argwhere((train > 0) & (test > 0))
            if len(both):
                row, col = both[0] + (start, 0)
                raise BadInput(f"{path}: labels.split: pixel ({row}, {col}) is in both train and test")
    if not labelled:
        raise BadInput(f"{path}: labels: no labelled pixel; leave `labels` out for an unlabelled scene")
