"""Writes docs/performance.md from the --json files of benchmarks: their machine, command and rows.

python benchmarks/performance_page.py STEP.json [...]      # writes docs/performance.md
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from report import cell_text

from diffclip_dist.cli.commandline import EXIT_DONE, run_command
from shards.errors import BadInput

PAGE: Final = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
TRIES: Final = PAGE.with_name("performance-tries.json")
HEAD: Final = """# Performance

`python benchmarks/performance_page.py FILE.json ...` writes this page from what benchmarks measured; no table is edited
by hand. The figures of a table come from one run; other machines give others.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json", help="what a benchmark's --json wrote")
    arguments = parser.parse_args()
    PAGE.write_text(page([read(file) for file in arguments.files], read(TRIES)))
    print(PAGE)
    return EXIT_DONE


def read(file: Path) -> dict[str, Any]:
    """A benchmark's report.

    Raises:
        BadInput: it is none.
    """
    try:
        report: dict[str, Any] = json.loads(file.read_text())
        if not {"machine", "config", "rows"} <= report.keys():
            raise ValueError("no machine, config and rows")
    except (OSError, ValueError) as error:
        raise BadInput(f"{file}: expected what a benchmark's --json wrote, found {error}") from None
    return report


def page(reports: Sequence[Mapping[str, Any]], tries: Mapping[str, Any]) -> str:
    """The whole page."""
    parts = [HEAD]
    for report in reports:
        parts.append(f"## {report['machine']['gpus'].replace('none', '') or report['machine']['processor']}\n")
        parts.append(f"    {report['config'].get('command', '')}\n")
        parts.append(listed(report["machine"]))
        parts.append(listed({key: value for key, value in report["config"].items() if key != "command"}))
        parts += [table(rows) for rows in by_measurement(report["rows"])]
    parts.append("## What was tried\n")
    parts.append(f"    {tries['config'].get('command', '')}\n")
    parts.append(listed(tries["machine"]))
    parts.append(listed({key: value for key, value in tries["config"].items() if key != "command"}))
    parts.append(table(tries["rows"]))
    return "\n".join(parts)


def by_measurement(rows: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The rows of each measurement, where a benchmark makes several that have other columns."""
    parts: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row.get("measurement", ""), []).append(row)
    return list(parts.values())


def listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {shown(value)}" for key, value in values.items()) + "\n"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table of Markdown, one column a key."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [[column.replace("_", " ") for column in columns], ["---"] * len(columns)]
    lines += [[shown(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def shown(value: object) -> str:
    return cell_text(value, digits=3)


if __name__ == "__main__":
    sys.exit(run_command(main))
