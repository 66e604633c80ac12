"""The layout that the documentation promises: imports in one direction, shards without torch, the four commands."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
LIBRARIES = ("shards", "diffclip_dist")

# a package may import those before it in this list and itself
ORDER = (
    "shards.errors",
    "shards.extras",
    "shards.nearest",
    "shards.band_tolerance",
    "shards.scene",
    "shards.simulate",
    "shards.open_scene",
    "shards.archive",
    "shards.build",
    "shards.preview",
    "diffclip_dist.randomness",
    "diffclip_dist.log_lines",
    "diffclip_dist.data",
    "diffclip_dist.model",
    "diffclip_dist.train",
    "diffclip_dist.feature_extraction",
    "diffclip_dist.words",
    "diffclip_dist.fewshot",
    "diffclip_dist.mapping",
    "diffclip_dist.study",
    "diffclip_dist.api",
    "diffclip_dist.cli",
)
COMMANDS = ("shard.py", "pretrain.py", "fewshot.py", "predict.py")


def _module(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {_module(path): path for library in LIBRARIES for path in sorted((REPOSITORY / library).rglob("*.py"))}


def _imports(path: Path) -> set[str]:
    """Every module that a file imports, wherever in the file; our own as deep as they go."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import; ours are absolute"
            assert node.module
            deeper = {f"{node.module}.{alias.name}" for alias in node.names} & SOURCES.keys()
            found |= deeper or {node.module}
    return found


IMPORTS = {module: _imports(path) for module, path in SOURCES.items()}


def _within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _place(module: str) -> int | None:
    """Where a module stands in `ORDER`; None for the two libraries' own faces."""
    return next((place for place, package in enumerate(ORDER) if _within(module, (package,))), None)


def test_packages_import_in_one_direction() -> None:
    back = [
        f"{module} imports {imported}"
        for module, found in IMPORTS.items()
        for imported in found
        if _within(imported, LIBRARIES)
        and (place := _place(module)) is not None
        and (other := _place(imported)) is not None
        and other > place
    ]
    assert not back


def test_every_module_has_its_place_in_the_order() -> None:
    assert {module for module in SOURCES if _place(module) is None} == {*LIBRARIES}


def test_modules_import_without_cycles() -> None:
    graph = {module: {name for name in found if name in SOURCES} for module, found in IMPORTS.items()}
    graphlib.TopologicalSorter(graph).prepare()


def test_nothing_after_the_encoder_needs_training() -> None:
    packages = ("feature_extraction", "words", "fewshot", "mapping", "study")
    later = tuple(f"diffclip_dist.{package}" for package in packages)
    users = [module for module in SOURCES if _within(module, later)]
    assert users
    assert not [m for m in users if any(_within(i, ("diffclip_dist.train", "deepspeed", "ray")) for i in IMPORTS[m])]


def test_libraries_import_no_command_and_no_benchmark() -> None:
    assert not [(m, i) for m, found in IMPORTS.items() for i in found if _within(i, ("launch", "benchmarks"))]


def test_importing_all_of_shards_brings_in_no_torch() -> None:
    modules = [module for module in SOURCES if _within(module, ("shards",))]
    check = f"import sys, {', '.join(modules)}; print({{'torch', 'diffclip_dist'}} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", check], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "set()"


def test_every_test_file_has_a_name_of_its_own() -> None:
    names = [path.name for path in (REPOSITORY / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted({*names}), "pytest imports them by their bare names"


def test_the_four_commands_are_there() -> None:
    assert {script.name for script in (REPOSITORY / "launch").glob("*.py")} >= {*COMMANDS}


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/architecture.md"])
def test_a_document_names_files_that_exist(document: str) -> None:
    text = (REPOSITORY / document).read_text()
    ours = ("shards", "diffclip_dist", "launch", "benchmarks", "tests", "docs")
    named = set(re.findall(rf"(?<![\w/.])(?:{'|'.join(ours)})/[\w./-]*[\w/]", text))
    assert named
    assert not {name for name in named if not (REPOSITORY / name).exists()}
