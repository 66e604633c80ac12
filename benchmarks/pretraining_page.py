"""Writes docs/explanation/pretraining.md from the figures beside it.

python benchmarks/pretraining_page.py          # after many_scenes.py --json docs/pretraining-scenes.json, and
                                               # many_scenes.py --data --json docs/pretraining-real-scenes.json
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from performance_page import listed, table
from report import HIGHEST, LOWEST

from diffclip_dist.cli.commandline import EXIT_DONE, run_command

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PAGE: Final = DOCS / "explanation" / "pretraining.md"
SCENES: Final = DOCS / "pretraining-scenes.json"
REAL_SCENES: Final = DOCS / "pretraining-real-scenes.json"
TRIES: Final = DOCS / "pretraining-tries.json"
_HEAD: Final = """# When pretraining pays

`python benchmarks/pretraining_page.py` writes this page from what `benchmarks/many_scenes.py` and tries measured;
no table is edited by hand. Gains are in points of overall accuracy over random weights, with the same read-out and the
same draws of labelled pixels, by labelled pixels a class; brackets hold 95 % intervals over all draws.

**Contrast of parts** (`--set preset=contrast`): two parts of a window, which share no pixel and get no added noise, are
to be found among those of other windows. It reconstructs nothing, so it has no decoders. One encoder reads scenes of
all sensors by their wavelengths:

```text
diffclip shard scene1 scene2 scene3 --out archive
diffclip pretrain --archive archive --run-dir run --set preset=contrast
diffclip fewshot --archive archive --scene scene1 --encoder run/encoder --shots 1,2,5
```

The default is mask diffusion still, so that the same seed gives the same losses as before.

**Mask diffusion over the same ten scenes brings the kernel head about as much**; the intervals overlap, so the contrast
is not shown to be the better objective there. It takes no decoders, hence less time a step. Most of what either brings
to the encoder's own features is lost in the kernel head, which sees the bands too.

On six real scenes that it had not seen, an encoder that learned by contrast over ten generated ones brings the kernel
head more at one and two labelled pixels a class, and nothing at five. One that saw the real scenes too is no better.
So the package has such an encoder (`--encoder shipped`), which `diffclip fewshot` takes where no other is given; the
last rows of the last table say what it brings.

What is not known: every encoder here learned for minutes of one core, and generated scenes are of one generator. The
table of generated scenes holds the first two encoders of the benchmark. Other numbers of scenes, one among them, and
longer runs are not measured yet, nor mask diffusion over many scenes on the real ones. Temperature, width and size of a
group were not tuned. Losses in noise-whitened components, masks over groups of bands and contrast between modalities
were not tried over many scenes.
"""
_KEYS: Final = ("objective", "pretraining_scenes", "windows", "place", "readout")


def main() -> int:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    PAGE.write_text(page())
    print(PAGE)
    return EXIT_DONE


def page() -> str:
    """The whole page."""
    parts = [_HEAD]
    for title, command, file in (
        ("Generated scenes", "python benchmarks/many_scenes.py", SCENES),
        ("Real scenes", "python benchmarks/many_scenes.py --data", REAL_SCENES),
    ):
        measured = json.loads(file.read_text())
        parts += [f"## {title}\n", f"    {command}\n", listed(measured["machine"])]
        parts.append(table(by_encoder(measured["rows"], "means")))
        parts.append("Scene by scene, with the kernel head:\n")
        parts.append(table(by_encoder([row for row in measured["rows"] if row["readout"] == "kernel head"], "scenes")))
    tries = json.loads(TRIES.read_text())
    parts.append("## What was tried\n")
    parts.append(tries["config"]["said"] + "\n")
    parts.append(table(tries["rows"]))
    return "\n".join(parts)


def by_encoder(rows: Sequence[Mapping[str, Any]], part: str) -> list[dict[str, Any]]:
    """A line for each encoder and place, or scene, with a column a count of shots."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["part"] != part:
            continue
        found = {key: row[key] for key in _KEYS if key in row}
        if part == "scenes":
            del found["readout"]
            found["scene"] = row["scene"]
        line = lines.setdefault(tuple(found.values()), found)
        low, high = row[f"{LOWEST}gain_oa_percent"], row[f"{HIGHEST}gain_oa_percent"]
        line[f"{row['shots']} shots"] = f"{row['gain_oa_percent']:+.1f} [{low:+.1f}, {high:+.1f}]"
        if part == "means":
            line[f"scenes ahead, {row['shots']} shots"] = f"{row['ahead_scenes']} of {row['scenes']}"
    return list(lines.values())


if __name__ == "__main__":
    sys.exit(run_command(main))
