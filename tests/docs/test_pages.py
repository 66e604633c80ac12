"""The documentation's pages: their blocks run, their commands are known, and the tests that they name exist."""

import contextlib
import importlib
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import rasterio
import torch
import yaml
from pages import DOCS, blocks_of, run_page
from small_products import HEIGHT, WIDTH, write_dlr, write_emit, write_landsat, write_prisma, write_sentinel2

from diffclip_dist.cli.benchmark import BENCHMARKS
from diffclip_dist.cli.command_parser import CommandParser
from diffclip_dist.cli.main import COMMANDS
from diffclip_dist.cli.schema import json_schema
from diffclip_dist.data.schema import ModalitySchema
from diffclip_dist.data.windows import SceneWindows
from diffclip_dist.model.model_config import ModelConfig
from diffclip_dist.model.onnx_export import export_onnx
from diffclip_dist.model.saved_encoder import new_encoder
from shards.archive.archive import Archive
from shards.archive.tiling import ArchiveSettings
from shards.build.build_archive import build_archive
from shards.open_scene import open_scene

PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
_COMMAND = re.compile(r"(?:^| )(?:diffclip |(?:\.venv/bin/)?python launch/)(.*)$")


@pytest.mark.slow
def test_the_tutorial_goes_from_files_to_a_map(tmp_path: Path) -> None:
    run_page("tutorial.md", tmp_path)
    held: dict[str, np.ndarray] = {}
    (make_files,) = [block.text for block in blocks_of("tutorial.md") if block.title == "make_files.py"]
    exec(make_files.partition("spectra")[0], held)  # noqa: S102  our own page, up to where the land cover is laid out
    names = ("grassland", "forest", "water", "town")
    for class_map in ("valley.tif", "pretrained.tif"):
        with rasterio.open(tmp_path / class_map) as file:
            found, tags = file.read(1), file.tags()
            assert file.crs.to_epsg() == 32633
        ids = {tags[f"CLASS_{class_id}"]: class_id for class_id in (1, 2, 3, 4)}
        assert np.mean(found == np.array([ids[name] for name in names])[held["cover"]]) > 0.95
    for study in ("study", "fit", "fit-pretrained"):
        assert (tmp_path / study / "report.html").is_file()


@pytest.fixture(scope="module")
def valley_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tutorial's archive, made by the tutorial's own files."""
    folder = tmp_path_factory.mktemp("valley")
    files = {block.title: block.text for block in blocks_of("tutorial.md") if block.title}
    (folder / "scene.yaml").write_text(files["scene.yaml"])
    subprocess.run([sys.executable, "-c", files["make_files.py"]], cwd=folder, check=True)
    build_archive([open_scene(str(folder))], folder / "archive", ArchiveSettings())
    return folder / "archive"


def test_the_page_on_xarray_opens_the_tutorials_archive(valley_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(valley_archive)
    run_page("how-to/xarray.md", tmp_path)
    with (
        rasterio.open(valley_archive.parent / "landsat.tif") as given,
        rasterio.open(tmp_path / "optical.tif") as found,
    ):
        assert (found.crs, found.transform, found.count) == (given.crs, given.transform, 6)
    with rasterio.open(tmp_path / "ndvi.tif") as file:
        assert file.crs.to_epsg() == 32633
        assert 0.3 < np.nanmedian(file.read(1)) < 1  # most of the valley is green
    with rasterio.open(tmp_path / "lonlat.tif") as file:
        assert file.crs.to_epsg() == 4326


def test_the_page_on_bounding_boxes_reads_the_tutorials_archive(valley_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(valley_archive)
    (block,) = blocks_of("how-to/bounding-boxes.md")
    held: dict[str, Any] = {}
    with contextlib.chdir(tmp_path):
        exec(block.text, held)  # noqa: S102  our own page
    assert held["dataset"].bounds == (400_000, 5_796_400, 404_800, 5_800_000)
    assert held["sample"]["image"].shape == (7, 32, 32)
    assert held["sample"]["bounds"].tolist() == [400_990, 5_797_000, 401_950, 5_797_960]
    assert held["scores"].shape == (5, 64, 64)


@pytest.mark.slow
def test_the_page_on_onnx_reads_windows_as_pytorch_does(valley_archive: Path, tmp_path: Path) -> None:
    (tmp_path / "archive").symlink_to(valley_archive)
    archive = Archive.open(valley_archive)
    schemas = [ModalitySchema.of(modality) for modality in archive.scene("valley").modalities]
    encoder = new_encoder(ModelConfig(width=16, depth=1, heads=2), schemas, seed=0)
    export_onnx(encoder, tmp_path / "encoder.onnx")
    (block,) = blocks_of("how-to/onnx.md")
    held: dict[str, np.ndarray] = {}
    with contextlib.chdir(tmp_path):
        exec(block.text, held)  # noqa: S102  our own page
    windows = SceneWindows(archive.read_scene("valley"), archive.scene("valley"), 5, torch.device("cpu"))
    cut, valid = windows.gather(np.array([42]), np.array([62]))
    with torch.no_grad():
        expected = encoder(cut, valid)
    np.testing.assert_allclose(held["tokens"], expected.tokens_BMTD.numpy(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["how-to/own-scene.md", "how-to/polygons.md"])
def test_a_page_brings_its_own_files(page: str, tmp_path: Path) -> None:
    run_page(page, tmp_path)
    (scene,) = Archive.open(tmp_path / "archive").manifest.scenes
    assert len(scene.classes) == 2


@pytest.mark.slow
def test_products_are_read_as_the_pages_say(tmp_path: Path) -> None:
    write_sentinel2(tmp_path, -1000)
    write_landsat(tmp_path, "txt")
    write_dlr(tmp_path, "enmap")
    place = {"Epsg_Code": 32633, "Product_ULcorner_easting": 600015.0, "Product_ULcorner_northing": 5799985.0}
    place |= {
        "Product_LRcorner_easting": 600015.0 + 30 * (WIDTH - 1),
        "Product_LRcorner_northing": 5799985.0 - 30 * (HEIGHT - 1),
    }
    scales = {"L2ScaleVnirMin": 0.01, "L2ScaleVnirMax": 1.2, "L2ScaleSwirMin": 0.0, "L2ScaleSwirMax": 0.9}
    write_prisma(tmp_path / "PRS_L2D_STD_20201107.he5", **place, **scales)
    write_emit(tmp_path / "EMIT_L2A_RFL_001_20230601T102559.nc")
    run_page("how-to/sentinel-2-and-landsat.md", tmp_path)
    names = {"archive": {"msi"}, "landsat-archive": {"optical"}}
    for folder, modalities in names.items():
        (scene,) = Archive.open(tmp_path / folder).manifest.scenes
        assert {modality.name for modality in scene.modalities} == modalities
    (tmp_path / "archive").rename(tmp_path / "sentinel-archive")
    run_page("how-to/imaging-spectrometers.md", tmp_path)
    names = {"archive": {"hsi"}, "prisma-archive": {"vnir", "swir"}, "emit-archive": {"reflectance"}}
    for folder, modalities in names.items():
        (scene,) = Archive.open(tmp_path / folder).manifest.scenes
        assert {modality.name for modality in scene.modalities} == modalities


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_is_one_that_its_parser_takes(page: str) -> None:
    """Those in blocks, cluster commands among them, that no test machine can run."""
    text = (DOCS / page).read_text()
    fenced = re.findall(r"^```(?:bash|text)[^\n]*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^    \S.*$", text, re.MULTILINE)
    lines = "\n".join([*fenced, *indented]).replace("\\\n", " ").splitlines()
    for line in lines:
        shown = _COMMAND.search(line.partition("#")[0].rstrip())
        if shown is None:
            continue
        name, *words = shlex.split(shown[1].partition(" > ")[0].rstrip("'"))
        name = name.removesuffix(".py")
        if name == "benchmark":
            assert words[0] in BENCHMARKS
            continue
        assert name in COMMANDS, f"{page}: {line}"
        options = importlib.import_module(f"diffclip_dist.cli.options.{name}")
        parser = CommandParser(name, options.__doc__)
        options.add_options(parser)
        parser.parse_args(words)


@pytest.mark.parametrize("page", PAGES)
def test_the_tests_and_sources_that_a_page_names_exist(page: str) -> None:
    text = (DOCS / page).read_text()
    named = {*re.findall(r"(?<![\w/.-])((?:shards|diffclip_dist|launch|benchmarks|tests)/[\w./-]*\w)", text)}
    missing = {name for name in named if not (DOCS.parent / name).exists()}
    assert not missing
    bare = {*re.findall(r"`(test_\w+\.py)`", text)}
    assert not {name for name in bare if not list((DOCS.parent / "tests").rglob(name))}


@pytest.mark.parametrize("page", [page for page in PAGES if 'title="scene.yaml"' in (DOCS / page).read_text()])
def test_the_schema_takes_the_pages_scenes(page: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema("scene"))
    for block in blocks_of(page):
        if block.title == "scene.yaml":
            # JSON names fields by text alone
            validator.validate(json.loads(json.dumps(yaml.safe_load(block.text))))


FORMS = (
    {"files": "a.tif"},
    {"files": ["a.tif", "b.tif"], "bands": "1-3,7", "wavelengths": [400, 500]},
    {"bands": {"B02": "*_B02_*.tif"}, "scale": 0.0001},
    {"files": "a.nc", "variable": ["B02", "B03"], "wavelengths": {"files": "a.nc", "variable": "wl"}},
)
FAULTS = ({"file": "a.tif"}, {"files": []}, {"files": 3}, {"files": "a.tif", "stack": "yes"}, {"bands": [1, 2]})


@pytest.mark.parametrize("modality", [*FORMS, *FAULTS], ids=str)
def test_the_scene_schema_knows_what_a_user_may_write(modality: dict[str, object]) -> None:
    scene = {"name": "town", "modalities": {"hsi": modality}}
    validator = jsonschema.Draft202012Validator(json_schema("scene"))
    assert validator.is_valid(scene) == (modality in FORMS)


def test_an_archives_manifest_fits_its_schema(generated_archive: Path) -> None:
    validator = jsonschema.Draft202012Validator(json_schema("manifest"))
    manifest = json.loads((generated_archive / "manifest.json").read_text())
    validator.validate(manifest)
    manifest["scenes"][0]["height"] = 0
    assert not validator.is_valid(manifest)


@pytest.mark.parametrize("file", ["scene", "manifest"])
def test_every_part_of_a_schema_says_what_it_is(file: str) -> None:
    schema = json_schema(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert part["description"]
        assert part["additionalProperties"] is False
