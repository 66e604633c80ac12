"""A scene described by a scene.yaml, checked whole and then read block by block."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import rasterio
from rasterio.errors import CRSError

from shards.errors import BadInput
from shards.scene.open_layer import find_files, open_layer, open_stack
from shards.scene.products.known_products import product_layers
from shards.scene.readers.arrays import read_vector
from shards.scene.readers.features import VectorSource
from shards.scene.readers.layer import Affine6, Given, Grid, Layer
from shards.scene.readers.missing_values import nodata_as
from shards.scene.readers.resampled import resample
from shards.scene.readers.same_grid import check_same_grid, same_crs
from shards.scene.readers.spectral_tags import nm_per_unit
from shards.scene.readers.stacked import bands_by_name
from shards.scene.readers.usable_bands import usable_bands
from shards.scene.readers.vectors import are_vectors, classes_of, open_vectors
from shards.scene.scene_file import LabelMap, ModalityFile, SceneFile, WavelengthFile, read_scene_file
from shards.scene.sensors import SENSORS
from shards.scene.source import Classes, Labels, Mask, Modality, Values

# rows read at once when a whole label map is checked
CHECK_ROWS = 512
# no sensor of the Earth has all of its bands below it; the same numbers in micrometres are optical
SHORTEST_NM = 100.0
T = TypeVar("T")
ONE_BAND_EACH = "give one file a band, or several that lie side by side"
STACK_OR_MOSAIC = (
    "if each file is a band, write `stack: true` or name them (`bands: {B02: ...}`); "
    "if they are a mosaic of which the first file wins, write `stack: false`"
)
ONE_LABEL_MAP = "give one label map, or several that lie side by side"
# coarser files of a stack keep their values, each repeated over the finer pixels
STACK_RESAMPLING = "nearest"


@dataclass(frozen=True)
class LabelLayer:
    """A label map in a file and the ids that may stand in it."""

    layer: Layer
    known: frozenset[int]
    ignored: frozenset[int]
    id_shift: int

    def read(self, rows: slice, cols: slice) -> Labels:
        """Class ids (row, col), shifted by `id_shift`; what is ignored, nodata or covered by no file is 0.

        Raises:
            BadInput: an id is neither a class nor ignored, or not a whole number.
        """
        values, valid = self.layer.read(rows, cols, (1,))
        for value in np.unique(values[valid]).tolist():
            if value not in self.ignored and value not in self.known:
                raise BadInput(
                    f"{self.layer.files}: labels: unknown class id {value:g}; expected one of "
                    f"{sorted(self.known)} or one of `ignore` {sorted(self.ignored)}"
                )
        labelled = valid & np.isin(values[..., 0], list(self.known))
        return np.where(labelled, values[..., 0].astype(np.int64) + self.id_shift, 0).astype(np.uint16)


@dataclass(frozen=True)
class FileScene:
    """A `SceneSource` over files; it holds no open file and can be sent to another process.

    `notes` are what a user should know of how the files are read, a line each.
    """

    name: str
    grid: Grid
    modalities: tuple[Modality, ...]
    layers: dict[str, tuple[Layer, tuple[int, ...]]]
    classes: Classes | None
    labels: LabelLayer | None
    split: tuple[LabelLayer, LabelLayer] | None
    notes: tuple[str, ...]
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
    return _open_described(read_scene_file(path), path)


def open_product(path: Path) -> FileScene | None:
    """Opens a product by its folder or file as a scene without labels, its layers the modalities.

    Returns:
        None where the path is no product that is known.

    Raises:
        BadInput: it is one, and cannot be read.
    """
    layers = product_layers(path, Given(), "product")
    if layers is None:
        return None
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.resolve().stem).strip("-_")[:64] or "scene"
    modalities = {layer: ModalityFile(files=(str(path.resolve()),), variable=layer) for layer in layers}
    return _open_described(SceneFile(name, modalities), path)


def _open_described(described: SceneFile, path: Path) -> FileScene:
    """Opens what a scene.yaml, or a product in its place, describes; `path` is for messages and for relative names."""
    layers: dict[str, tuple[Layer, tuple[int, ...]]] = {}
    modalities: list[Modality] = []
    notes: list[str] = []
    for name, spec in described.modalities.items():
        field_name = f"modalities.{name}"
        layer = _open_modality(spec, path, described.crs, field_name)
        wanted = _bands(spec, layer, field_name)
        bands, left_out = usable_bands(layer, wanted, asked=isinstance(spec.bands, tuple))
        notes += [*layer.notes, *(f"{described.name}: {name}: {line}" for line in left_out)]
        if spec.resample is not None and layers:
            layer = resample(layer, next(iter(layers.values()))[0].grid, spec.resample, field_name)
        layers[name] = (layer, bands)
        modalities.append(_modality(name, spec, layer, wanted, bands, path.parent))
    grid = _common_grid({name: layer for name, (layer, _) in layers.items()})
    scene = _with_labels(described, path, grid, tuple(modalities), layers, tuple(notes))
    _check_crs(described, grid, path)
    _check_labels(scene, path)
    return scene


def _open_modality(spec: ModalityFile, path: Path, scene_crs: str | None, field_name: str) -> Layer:
    crs = _crs_wkt(spec.crs or scene_crs, path, f"{field_name}.crs" if spec.crs else "crs")
    given = Given(spec.nodata, spec.scale, spec.offset, crs, crs_is_theirs=spec.crs is not None)
    method = spec.resample or STACK_RESAMPLING
    if isinstance(spec.bands, dict):
        fields = {band: f"{field_name}.bands.{band}" for band in spec.bands}
        named = {band: find_files(path.parent, files, fields[band]) for band, files in spec.bands.items()}
        layer = open_stack(named, spec.variable, given, method, field_name, ONE_BAND_EACH)
        if layer.bands != len(named):
            raise BadInput(f"{layer.files}: {field_name}.bands: the {len(named)} names' files hold {layer.bands} bands")
        return layer
    assert spec.files is not None
    paths = find_files(path.parent, spec.files, field_name)
    if spec.stack:
        return open_stack(bands_by_name(paths), spec.variable, given, method, field_name, ONE_BAND_EACH)
    covering = STACK_OR_MOSAIC if spec.stack is None else None
    return open_layer(paths, spec.variable, given, field_name, covering)


def _check_crs(described: SceneFile, grid: Grid, path: Path) -> None:
    """Refuses a CRS of the scene that is another than its files'."""
    crs_wkt = _crs_wkt(described.crs, path, "crs")
    if crs_wkt is not None and not same_crs(crs_wkt, grid.crs_wkt):
        fault = "the files' own CRS is another one" if grid.crs_wkt else "no file carries a transform to place it by"
        raise BadInput(f"{path}: crs: {fault}; leave `crs` out or correct the files")


def _crs_wkt(text: str | None, path: Path, field_name: str) -> str | None:
    if text is None:
        return None
    try:
        return str(rasterio.CRS.from_user_input(text).to_wkt())
    except CRSError as error:
        raise BadInput(f"{path}: {field_name}: {text!r} is no CRS; expected one such as EPSG:32633") from error


def _bands(spec: ModalityFile, layer: Layer, field_name: str) -> tuple[int, ...]:
    if not isinstance(spec.bands, tuple):
        return tuple(band for band in range(1, layer.bands + 1) if band not in layer.mask_bands)
    bands = spec.bands
    if max(bands) > layer.bands:
        raise BadInput(f"{layer.files}: {field_name}.bands: band {max(bands)} is out of range; it has {layer.bands}")
    return bands


def _modality(
    name: str, spec: ModalityFile, layer: Layer, wanted: tuple[int, ...], bands: tuple[int, ...], folder: Path
) -> Modality:
    """The modality with the bands that are left of those wanted."""
    wavelengths = _chosen(layer.wavelengths_nm, bands)
    if spec.wavelengths is not None:
        field_name = f"modalities.{name}.wavelengths"
        wavelengths = _given_wavelengths(spec.wavelengths, layer, wanted, bands, folder, field_name)
    if wavelengths is not None and not np.isfinite(wavelengths).all():
        raise BadInput(f"{layer.files}: modalities.{name}: wavelengths that are no numbers; give `wavelengths` instead")
    if wavelengths is not None and max(wavelengths) < SHORTEST_NM:
        given = "wavelengths" if spec.wavelengths is not None else "the file's own wavelengths"
        raise BadInput(
            f"{layer.files}: modalities.{name}: {given}: {wavelengths[0]:g} to {wavelengths[-1]:g} nm, shorter than "
            "light; if these are micrometres, give `wavelengths` in nm"
        )
    fwhm = _chosen(layer.fwhm_nm, bands)
    if spec.sensor is not None:
        of_sensor = _sensor_bands(spec.sensor, layer, wanted, bands, name)
        if wavelengths is None:
            wavelengths, fwhm = of_sensor
    nodata = None
    if layer.nodata is not None and np.issubdtype(layer.dtype, np.integer):
        marker = nodata_as(layer.nodata, layer.dtype)
        nodata = None if marker is None else int(marker)
    bad = tuple(place for place, band in enumerate(bands, start=1) if band in layer.bad_bands)
    return Modality(
        name,
        len(bands),
        layer.dtype.name,
        wavelengths,
        fwhm if fwhm is None or np.isfinite(fwhm).all() else None,
        bad,
        nodata,
        _chosen(layer.band_names, bands),
        tuple(scaling.of_bands(bands) for scaling in layer.scalings),
        spec.sensor,
        _marked_height(spec, len(bands), name, layer),
    )


def _marked_height(spec: ModalityFile, bands: int, name: str, layer: Layer) -> bool:
    if spec.surface_height and bands != 1:
        raise BadInput(f"{layer.files}: modalities.{name}.surface_height: expected a single band, found {bands}")
    return spec.surface_height


def _sensor_bands(
    name: str, layer: Layer, wanted: tuple[int, ...], bands: tuple[int, ...], modality: str
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Centres and widths of the bands that are left; the files, the bands wanted or those left are the sensor's."""
    sensor = SENSORS[name]
    for listed in (tuple(range(1, layer.bands + 1)), wanted, bands):
        places = sensor.places(len(listed), _chosen(layer.band_names, listed))
        if places is not None:
            by_band = dict(zip(listed, places, strict=True))
            chosen = [by_band[band] for band in bands]
            return tuple(sensor.centres_nm[place] for place in chosen), tuple(
                sensor.widths_nm[place] for place in chosen
            )
    counts = " or ".join(str(len(layout)) for layout in sensor.layouts)
    raise BadInput(
        f"{layer.files}: modalities.{modality}.sensor: {layer.bands} bands, expected {counts} of {name}; give "
        "`wavelengths` instead"
    )


def _chosen(values: tuple[T, ...] | None, bands: tuple[int, ...]) -> tuple[T, ...] | None:
    return None if values is None else tuple(values[band - 1] for band in bands)


def _given_wavelengths(
    given: WavelengthFile | tuple[float, ...],
    layer: Layer,
    wanted: tuple[int, ...],
    bands: tuple[int, ...],
    folder: Path,
    field_name: str,
) -> tuple[float, ...]:
    """Wavelengths of the bands that are left; given for all bands of the files, for those wanted, or for those left."""
    if isinstance(given, WavelengthFile):
        paths = find_files(folder, given.files, field_name)
        if len(paths) > 1:
            raise BadInput(f"{paths[1]}: {field_name}: expected one file, found {len(paths)}")
        factor = nm_per_unit(given.units, f"{paths[0]}: {field_name}")
        values, where = tuple(float(value) * factor for value in read_vector(paths[0], given.variable)), str(paths[0])
    else:
        values, where = given, layer.files
    for listed in (tuple(range(1, layer.bands + 1)), wanted, bands):
        if len(values) == len(listed):
            by_band = dict(zip(listed, values, strict=True))
            values = tuple(by_band[band] for band in bands)
            break
    else:
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


def _with_labels(
    described: SceneFile,
    path: Path,
    grid: Grid,
    modalities: tuple[Modality, ...],
    layers: dict[str, tuple[Layer, tuple[int, ...]]],
    notes: tuple[str, ...],
) -> FileScene:
    spec = described.labels
    if spec is None:
        return FileScene(described.name, grid, modalities, layers, None, None, None, notes)
    first_name, (first, _) = next(iter(layers.items()))
    # 0 is a class only where the user says so
    ignored = frozenset(spec.ignore) if 0 in spec.classes else frozenset({0, *spec.ignore})
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
    # labels are kept with 0 for unlabelled
    id_shift = 1 if 0 in classes else 0

    def label_layer(name: str, place: LabelMap) -> LabelLayer:
        if name in vectors:
            layer: Layer = open_vectors(vectors[name], grid, classes, ignored)
            return LabelLayer(layer, frozenset(classes), ignored, id_shift)
        field_name = "labels.files" if name == "labels" else name
        crs = _crs_wkt(place.crs or described.crs, path, f"{name}.crs" if place.crs else "crs")
        given = Given(crs_wkt=crs, crs_is_theirs=place.crs is not None)
        files = find_files(path.parent, place.files or (), field_name)
        layer = open_layer(files, place.variable, given, field_name, ONE_LABEL_MAP)
        own = tuple(band for band in range(1, layer.bands + 1) if band not in layer.mask_bands)
        if own != (1,):
            raise BadInput(f"{layer.files}: {field_name}: {len(own)} bands, expected one band of class ids")
        if layer.nodata in classes:
            raise BadInput(
                f"{layer.files}: {field_name}: class {layer.nodata:g} is what the file calls nodata; take that out of "
                "the file (gdal_edit.py -unsetnodata) or the class out of `classes`"
            )
        if spec.resample is not None:
            layer = resample(layer, first.grid, spec.resample, field_name)
        check_same_grid(first, layer, field_name, first_name)
        return LabelLayer(layer, frozenset(classes), ignored, id_shift)

    opened = {name: label_layer(name, place) for name, place in maps.items()}
    split = None
    if spec.split is not None:
        split = (opened["labels.split.train"], opened["labels.split.test"])
    names, descriptions = (
        {number + id_shift: text for number, text in sorted(texts.items())} for texts in (classes, spec.descriptions)
    )
    meaning = Classes(names, descriptions, spec.split is not None, id_shift)
    notes = (*notes, *(note for label in opened.values() for note in label.layer.notes))
    return FileScene(described.name, grid, modalities, layers, meaning, opened.get("labels"), split, notes)


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
