"""The architecture page shows the packages and imports that the sources have."""

import runpy
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def test_the_page_is_drawn_from_the_present_sources() -> None:
    drawing = runpy.run_path(str(DOCS / "draw_architecture.py"))
    page = (DOCS / "architecture.md").read_text()
    assert drawing["drawn"](page) == page, "run: python docs/draw_architecture.py"
    picture = (DOCS / "images" / "architecture.svg").read_text()
    assert drawing["picture"](drawing["module_sources"]()) == picture, "run: python docs/draw_architecture.py"


def test_an_import_is_found_wherever_it_stands_and_a_detour_is_left_out(tmp_path: Path) -> None:
    drawing = runpy.run_path(str(DOCS / "draw_architecture.py"))
    file = tmp_path / "module.py"
    file.write_text("import shards.a\n\ndef late() -> None:\n    from shards import b\n    from shards.c.d import e\n")
    known = ["shards.a", "shards.b", "shards.c.d", "shards.f"]
    assert drawing["imported_modules"](file, known) == {"shards.a", "shards.b", "shards.c.d"}
    imports = {"shards.a": set(), "shards.b": {"shards.a"}, "shards.c": {"shards.a", "shards.b"}}
    assert drawing["without_detours"](imports) == {**imports, "shards.c": {"shards.b"}}
