"""What accuracy_page.py writes: docs/accuracy.md, and the table in the README."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from accuracy_compare import BEST_PIXEL_ROW, CHOSEN_PIXEL_ROW, OURS, PUBLISHED, RANDOM, SHIPPED
from accuracy_jobs import NAMES_ALONE
from performance_page import listed, table
from report import read_json

from diffclip_dist.cli.commandline import EXIT_DONE
from shards.errors import BadInput

ROOT: Final = Path(__file__).resolve().parents[1]
PAGE: Final = ROOT / "docs" / "accuracy.md"
README: Final = ROOT / "README.md"
BEGIN: Final = "<!-- benchmarks/accuracy_page.py writes this table -->"
END: Final = "<!-- end of the table -->"
IN_README: Final = (
    SHIPPED, f"{SHIPPED}, no names", OURS, RANDOM, f"{OURS}, no names", f"{RANDOM}, no names", PUBLISHED, "SVM",
    CHOSEN_PIXEL_ROW, BEST_PIXEL_ROW, NAMES_ALONE,
)  # fmt: skip
HEAD: Final = """# Accuracy on real scenes

`python benchmarks/accuracy_page.py FILE.json` writes this page from what `benchmarks/accuracy.py --json
FILE.json` measured; no table is edited by hand. Each cell is OA / AA in percent, a mean over draws of the
labelled pixels, tested on every other labelled pixel of the setting. Which rows are there depends on how far
the run went.

- **ours** is the default: the kernel head, with class names, on an encoder pretrained on the scene; **shipped
  encoder** is the default without a run of one's own, on the encoder that comes with the package, which has seen
  none of these scenes; **random weights** is the same without pretraining; **published second stage** is the
  paper's alignment alone, from random weights, with frozen text.
- Rows that see **unlabelled pixels** learn from the scene without its labels, the tested pixels among them:
  they are transductive. In `cross-scene` they learn so from each half by itself.
- **best pixel row of this scene** is chosen by looking at the test, which favours it; **pixel row chosen on the
  other scenes** is what a user could have known.
- Settings: `random` tests on all other labelled pixels of the scene; `blocks` on those in distant blocks;
  `cross-scene` learns in one half of a scene and tests in the other, each a scene of its own, with random
  weights.
- Intervals over scenes say what another scene may bring, intervals over draws what other shots may.

## The paper's table

    diffclip benchmark reproduce

fetches Houston2013, Trento and MUUFL and runs the paper's protocol: 2 and 40 shots, ten repeats, the official
test map where there is one, presets `published` and `default`, each beside the same model without pretraining
and beside alignment alone, whose frozen text is CLIP's with `--text open_clip:ViT-B-16:openai`. It prints the
differences next to the paper's. It was never run on these sets here, for want of a network:
`tests/benchmarks/test_reproduce.py` runs it on small generated stand-ins, which its output calls so. `--steps`,
`--epochs`, `--windows`, `--repeats` and `--shots` limit what it costs.
"""


def write(file: Path) -> int:
    """Writes the page and the README's table from a report."""
    report = read_json(file)
    PAGE.write_text(page(report))
    README.write_text(with_table(README.read_text(), readme_table(report["rows"])))
    print(PAGE, README, sep="\n")
    return EXIT_DONE


def page(report: Mapping[str, Any]) -> str:
    """The whole page."""
    rows, jobs = report["rows"], report["config"]["jobs"]
    parts = [HEAD, listed(report["machine"])]
    left = report["config"]["jobs_left"]
    parts.append(f"{len(jobs)} jobs of the benchmark were run{f', {left} were left out for time' * bool(left)}.\n")
    for generated in (False, True):
        for setting in dict.fromkeys(row["setting"] for row in rows):
            here = [row for row in rows if row["setting"] == setting and row["generated"] == generated]
            if here:
                parts += _setting(here, f"{'Generated' if generated else 'Real'} scenes, {setting}")
    return "\n".join(parts)


def readme_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the real scenes of the rows that matter most."""
    means = [row for row in rows if row["part"] == "means" and row["setting"] == "random" and not row["generated"]]
    most = max((row["scenes"] for row in means), default=0)
    shown = [row for name in IN_README for row in means if row["classifier"] == name and row["scenes"] == most]
    held = [row for row in means if row["classifier"] == NAMES_ALONE and row["scenes"] < most]
    lines = by_shots(shown + held, _row_name(most))
    return f"Mean of {most} real scenes, OA / AA in percent, by labelled pixels a class:\n\n{table(lines)}"


def with_table(text: str, written: str) -> str:
    """The text with what lies between the marks replaced.

    Raises:
        BadInput: a mark is missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"README.md: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{written}\n{END}{after}"


def _setting(rows: Sequence[Mapping[str, Any]], title: str) -> list[str]:
    parts = [f"## {title}\n"]
    means = [row for row in rows if row["part"] == "means"]
    most = max((row["scenes"] for row in means), default=0)
    parts += ["Mean over the scenes.\n", table(by_shots(means, _row_name(most), sees=True))]
    for scene in dict.fromkeys(row["scene"] for row in rows if row["part"] == "figures"):
        figures = [row for row in rows if row["part"] == "figures" and row["scene"] == scene]
        draws = max(row["draws"] for row in figures)
        parts += [f"**{scene}**, {draws} draws.\n", table(by_shots(figures, lambda row: row["classifier"]))]
    gains = [row for row in rows if row["part"] == "mean differences"]
    if gains:
        parts.append(
            "Paired differences in points, OA [95 % over scenes], [95 % over draws] / AA [95 % over scenes].\n"
        )
        parts.append(table(by_shots(gains, _difference_name, cell=_gain)))
    return parts


def by_shots(
    rows: Sequence[Mapping[str, Any]],
    named: Callable[[Mapping[str, Any]], str],
    cell: Callable[[Mapping[str, Any]], str] = lambda row: f"{row['oa_percent']:.1f} / {row['aa_percent']:.1f}",
    sees: bool = False,
) -> list[dict[str, str]]:
    """A line a classifier, a column a count of shots."""
    counts = sorted({row["shots"] for row in rows})
    lines: dict[str, dict[str, str]] = {}
    for row in rows:
        start = {"row": named(row)} | ({"sees": row["sees"]} if sees else {})
        line = lines.setdefault(named(row), start | {_column(count): "-" for count in counts})
        line[_column(row["shots"])] = cell(row)
    return list(lines.values())


def _column(shots: int) -> str:
    return f"{shots} shot{'s' * (shots != 1)}"


def _row_name(most: int) -> Callable[[Mapping[str, Any]], str]:
    """Names rows; one that not all scenes have says so."""
    return lambda row: row["classifier"] + f" ({row['scenes']} of the scenes)" * (row["scenes"] < most)


def _difference_name(row: Mapping[str, Any]) -> str:
    return f"{row['classifier']} - {row['against']} ({row['scenes']} scene{'s' * (row['scenes'] != 1)})"


def _gain(row: Mapping[str, Any]) -> str:
    def limits(metric: str, over: str) -> str:
        return f"[{row[f'{metric}_gain_{over}_from_percent']:+.1f}, {row[f'{metric}_gain_{over}_to_percent']:+.1f}]"

    oa, aa = f"{row['oa_gain_percent']:+.1f}", f"{row['aa_gain_percent']:+.1f}"
    # the comma keeps Markdown from taking two pairs of brackets for a link
    return f"{oa} {limits('oa', 'scenes')}, {limits('oa', 'draws')} / {aa} {limits('aa', 'scenes')}"
