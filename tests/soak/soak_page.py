"""Writes the tables of docs/explanation/faults.md from what a soak wrote.

    python tests/soak/soak_page.py docs/soak-pretraining.json

The tables stand between two comments that name the JSON.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "explanation" / "faults.md"
NORMAL_95 = 1.96


def tables(report: dict[str, Any]) -> str:
    """Faults and what followed, growth by kind of process with its 95 % interval, and how it ended."""
    rows = {part: [row for row in report["rows"] if row["part"] == part] for part in ("faults", "growth", "run")}
    (run,) = rows["run"]
    waits = defaultdict(list)
    for row in rows["faults"]:
        waits[row["fault"]].append(row["next_step_after_s"])
    lines = [
        f"{run['soaked_s'] / 60:.0f} minutes, {run['faults']} faults, {run['compared_steps']:,} steps. Losses equal to "
        f"the last bit: {'yes' if run['losses_equal'] else 'no'}. Left over: {run['left_over']}."
        + ("" if report["config"]["ended"] else " It has not run to its end."),
        "",
        "| fault | times | next step after, s |",
        "|---|---|---|",
    ]
    lines += [f"| {fault} | {len(each)} | {min(each):.0f} to {max(each):.0f} |" for fault, each in waits.items()]
    lines += [
        "",
        "| processes | lives | median MiB | growth, MiB an hour | growth, open files an hour |",
        "|---|---|---|---|---|",
    ]
    for row in rows["growth"]:
        growth = "-"
        if row["growth_mib_per_h"] is not None:
            error = NORMAL_95 * row["growth_standard_error_mib_per_h"]
            growth = f"{row['growth_mib_per_h']:.2f} ± {error:.2f}"
        files = row["growth_open_files_per_h"]
        said = "-" if files is None else f"{files:.1f}"
        lines.append(f"| {row['processes']} | {row['lives']} | {row['median_mib']:.0f} | {growth} | {said} |")
    return "\n".join(lines)


def with_tables(page: str, file: Path) -> str:
    """The page with the tables of a soak's JSON, between the comments that name it."""
    begin, end = (f"<!-- tests/soak/soak_page.py {file.name}: {what} -->" for what in ("begin", "end"))
    before, _, rest = page.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{tables(json.loads(file.read_text()))}\n{end}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text(), Path(sys.argv[1])))
