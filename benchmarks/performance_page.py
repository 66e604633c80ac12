"""Writes docs/performance.md from the figures beside it.

python benchmarks/performance_page.py      # after training_step.py --json docs/performance-step.json, and so on
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from report import cell, cell_text, columns_of, read_json

from diffclip_dist.cli.commandline import EXIT_DONE, run_command

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PAGE: Final = DOCS / "performance.md"
# docs/performance-NAME.json, and the title of its section
SECTIONS: Final = {
    "step": "A step",
    "weak": "One worker and two",
    "sizes": "By the archive's size",
    "fewshot": "Few-shot, by the scene's size",
    "drift": "Compiled beside plain",
    "tries": "What was tried",
}
HEAD: Final = """# Performance

`python benchmarks/performance_page.py` writes this page from what benchmarks measured; no table is edited by hand. The
figures of a table come from one run; other machines give others. "Processes waiting to run before" is the machine's
load when a run began: above its number of cores, times are too long.
"""


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page())
    print(PAGE)
    return EXIT_DONE


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for name, title in SECTIONS.items():
        parts += section(title, read_json(DOCS / f"performance-{name}.json"))
    return "\n".join(parts)


def section(title: str, report: Mapping[str, Any]) -> list[str]:
    """What a benchmark's --json wrote: its command, the machine, and a table for each kind of rows."""
    settings = {key: value for key, value in report["config"].items() if key != "command"}
    head = [f"## {title}\n", f"    {report['config']['command']}\n", listed(report["machine"]), listed(settings)]
    return head + [table(rows) for rows in by_measurement(report["rows"])]


def by_measurement(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each measurement, where a benchmark makes several that have other columns."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row.get("measurement", ""), []).append(row)
    return list(parts.values())


def listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {cell_text(value, digits=3)}" for key, value in values.items()) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table of Markdown, one column a key; a number with a spread reads ``median (lowest to highest)``."""
    columns = columns_of(rows)
    lines = [[column.replace("_", " ") for column in columns], ["---"] * len(columns)]
    lines += [[cell(row, column, digits=3) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


if __name__ == "__main__":
    sys.exit(run_command(main))
