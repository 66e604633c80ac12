"""Draws docs/images/architecture.svg and the table of docs/architecture.md from the sources.

    python docs/draw_architecture.py

A box is a package; its sentence is the first one of the package's docstring. An arrow leads from a package to one that
imports it. Run this after a change of packages or of imports between them; tests/test_architecture.py compares.
"""

import ast
import graphlib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
PAGE: Final = REPOSITORY / "docs" / "architecture.md"
PICTURE: Final = REPOSITORY / "docs" / "images" / "architecture.svg"
LIBRARIES: Final = ("shards", "diffclip_dist")
COLOURS: Final = {"shards": "#d9ead3", "diffclip_dist": "#d6e4f5"}
# of the picture, in pixels: width and height of a box, and from a box to the next
BOX: Final = (144, 34)
COLUMN: Final = 190
ROW: Final = 74
MARGIN: Final = 16
BEGIN: Final = "<!-- drawn by docs/draw_architecture.py: begin -->\n"
END: Final = "<!-- drawn by docs/draw_architecture.py: end -->\n"

Imports = dict[str, set[str]]


def module_sources() -> dict[str, Path]:
    """Path of each module of the two libraries, by dotted name."""
    found = {}
    for library in LIBRARIES:
        for path in sorted((REPOSITORY / library).rglob("*.py")):
            parts = path.relative_to(REPOSITORY).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported_modules(path: Path, known: Iterable[str]) -> set[str]:
    """The known modules that a file imports, wherever in the file."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names & set(known)


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without its full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")


def box_imports(sources: dict[str, Path], boxes: Iterable[str]) -> Imports:
    """For each box, the other boxes that its modules import."""
    longest_first = sorted(boxes, key=len, reverse=True)

    def box_of(module: str) -> str | None:
        return next((box for box in longest_first if module == box or module.startswith(f"{box}.")), None)

    imports: Imports = {box: set() for box in longest_first}
    for module, path in sources.items():
        box = box_of(module)
        if box is not None:
            found = {box_of(imported) for imported in imported_modules(path, sources)}
            imports[box] |= {other for other in found if other is not None} - {box}
    return imports


def in_order(imports: Imports) -> list[str]:
    """Boxes, each after those that it imports; the library, then the name, decide between equals."""
    waiting = graphlib.TopologicalSorter(imports)
    waiting.prepare()
    ordered: list[str] = []
    ready = list(waiting.get_ready())
    while ready:
        ready.sort(key=lambda box: (LIBRARIES.index(box.partition(".")[0]), box))
        box = ready.pop(0)
        ordered.append(box)
        waiting.done(box)
        ready += waiting.get_ready()
    return ordered


def without_detours(imports: Imports) -> Imports:
    """The imports that no chain of other imports implies."""
    reached: Imports = {}
    for box in in_order(imports):
        reached[box] = imports[box].union(*(reached[other] for other in imports[box]))
    return {
        box: {other for other in found if not any(other in reached[between] for between in found - {other})}
        for box, found in imports.items()
    }


def picture(sources: dict[str, Path]) -> str:
    """The packages right below the two libraries as an SVG: a row for each length of the chain of imports."""
    top = {module for module in sources if module.count(".") == 1}
    packages = {module for module in top if sources[module].name == "__init__.py"}
    imports = box_imports(sources, top)
    # a file beside the packages is shown where it uses one; the others are small tools that every package may use
    shown = packages | {module for module in top if imports[module] & packages}
    imports = {box: found & shown for box, found in imports.items() if box in shown}
    ordered, direct = in_order(imports), without_detours(imports)
    row: dict[str, int] = {}
    for box in ordered:
        row[box] = 1 + max((row[other] for other in direct[box]), default=-1)
    corner: dict[str, tuple[int, int]] = {}
    for box in ordered:
        column = sum(row[other] == row[box] for other in corner)
        # odd rows lie further right, so that an arrow over several rows passes between boxes
        corner[box] = (MARGIN + column * COLUMN + row[box] % 2 * COLUMN // 2, MARGIN + row[box] * ROW)
    width = max(x for x, _ in corner.values()) + BOX[0] + MARGIN
    height = max(y for _, y in corner.values()) + BOX[1] + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="14">',
        '<marker id="head" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        '<path d="M0 0 8 4 0 8z" fill="#555"/></marker>',
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for box in ordered:
        for other in sorted(direct[box]):
            (x0, y0), (x1, y1) = corner[other], corner[box]
            x0, y0, x1, bend = x0 + BOX[0] // 2, y0 + BOX[1], x1 + BOX[0] // 2, ROW - BOX[1]
            lines.append(
                f'<path d="M{x0} {y0}C{x0} {y0 + bend} {x1} {y1 - bend} {x1} {y1}" fill="none" stroke="#555" '
                'marker-end="url(#head)"/>'
            )
    for box in ordered:
        (x, y), (library, _, name) = corner[box], box.partition(".")
        lines.append(
            f'<g><title>{html.escape(first_sentence(sources[box]))}</title><rect x="{x}" y="{y}" width="{BOX[0]}" '
            f'height="{BOX[1]}" rx="6" fill="{COLOURS[library]}" stroke="#555"/><text x="{x + BOX[0] // 2}" '
            f'y="{y + BOX[1] // 2 + 5}" text-anchor="middle">{name}</text></g>'
        )
    return "\n".join([*lines, "</svg>\n"])


def table(sources: dict[str, Path]) -> str:
    """Every package, its own packages below it, with its purpose and all packages that it imports."""
    packages = [module for module, path in sources.items() if "." in module and path.name == "__init__.py"]
    imports = box_imports(sources, packages)
    top = in_order(box_imports(sources, [package for package in packages if package.count(".") == 1]))
    lines = ["| package | purpose | imports |", "|---|---|---|"]
    for package in (package for above in top for package in packages if f"{package}.".startswith(f"{above}.")):
        found = ", ".join(sorted(imports[package]))
        purpose = first_sentence(sources[package]).replace("|", r"\|")
        lines.append(f"| `{package.replace('.', '/')}` | {purpose} | {found or 'none'} |")
    return "\n".join(lines)


def drawn(page: str) -> str:
    """The page with what lies between the two marks drawn anew."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    sources = module_sources()
    return f"{before}{BEGIN}\n{table(sources)}\n\n{END}{after}"


if __name__ == "__main__":
    PICTURE.write_text(picture(module_sources()))
    PAGE.write_text(drawn(PAGE.read_text()))
