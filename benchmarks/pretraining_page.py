"""Writes docs/explanation/pretraining.md from the figures beside it.

python benchmarks/pretraining_page.py          # after many_scenes.py --json docs/pretraining-scenes.json,
                                               # many_scenes.py --data --json docs/pretraining-real-scenes.json,
                                               # language.py --json docs/pretraining-language.json, and
                                               # objectives.py --real --json docs/pretraining-objectives.json
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

from performance_page import listed, table
from report import HIGHEST, LOWEST

from diffclip_dist.cli.commandline import EXIT_DONE, run_command

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
PAGE: Final = DOCS / "explanation" / "pretraining.md"
SCENES: Final = DOCS / "pretraining-scenes.json"
REAL_SCENES: Final = DOCS / "pretraining-real-scenes.json"
LANGUAGE: Final = DOCS / "pretraining-language.json"
OBJECTIVES: Final = DOCS / "pretraining-objectives.json"
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

**Captions as a second objective did not pay** in 150 steps, so pretraining has none. Beside the contrast they bring the
encoder's own features a point or two on generated scenes of the same kind and nothing on real ones, where the kernel
head loses half a point at one labelled pixel a class. Names alone are told worse by such an encoder than by the words,
which stay the default of `--shots 0`; on one real scene of six the encoder is ahead in both figures. One reason may be
that encoders see bands standardised scene by scene, while the words see reflectance.

What is not known: every encoder here learned for minutes of one core, and generated scenes are of one generator. The
table of generated scenes holds the first two encoders of the benchmark. Other numbers of scenes, one among them, and
longer runs are not measured yet, nor mask diffusion over many scenes on the real ones. Temperature, width and size of a
group were not tuned.

**No other objective is kept.** Losses in noise-whitened components, contrast with groups of bands hidden, contrast
between modalities and contrast of near pixels were each tried beside the contrast of parts, over the same windows of
twelve generated scenes. On generated scenes outside of pretraining, where settings are chosen, none of the four is
ahead of the contrast of parts at 1, 2 and 5 shots alike, and none brings 3 points over random weights. On real scenes
they bring what the contrast of parts brings or less. More varied scenes do not help the contrast. Labels of generated
scenes, beside the contrast, help the encoder's own features and bring the kernel head a point there, but on real scenes
no more than the shipped encoder. At five shots no objective brings real scenes half a point.
"""
_CAPTIONS: Final = """Two encoders learned over the same windows, 128 at each of 150 steps: of 36 generated scenes of
materials (`benchmarks/material_scene.py`) at the bands of random sensors, and of 12 other generated scenes. One learned
by contrast of parts alone. The other also learned to bring the token of every visible pixel of a scene of materials
near to the sentence vector of a caption of its material: symmetric InfoNCE at temperature 0.1, of the same weight as
the contrast, where a wording that several materials share is no negative. Scenes of materials are tested with spectra
from the half of the library that neither encoder saw. Five draws. Weight and temperature were not tuned, steps were
few, and other seeds were not tried.

Names alone are told in three ways: by the words (all labelled pixels); by the cosine of what the encoder's head makes
of a pixel and each class's name; and by that of each material's captions, then from materials to classes as the words
do (2,000 labelled pixels each).
"""
_BESIDE: Final = """Encoders of the default sizes with the wavelength stem, 300 steps of 128 windows, in a plain loop.
Unless a row says otherwise, all saw the same windows in the same order, of twelve generated scenes of six sensors.
Varied scenes are these, 60 of materials (`benchmarks/material_scene.py`) at the bands of random sensors with haze and
mixing, and two as seen from orbit. The shipped encoder is the one that comes with the package. Five draws; the kernel
head knows no class names. Gains are over the same random weights; the last row is another draw of random weights, so
what it shows is noise.

- **Noise-whitened components**: mask diffusion whose errors are measured in components of the scene's band metric.
- **Groups of bands hidden**: of each window, each part lacks about half of eight groups of bands.
- **Modalities**: a part of one modality is also to be found by the other part of another modality.
- **Near pixels**: one pixel's token is to be found by that of the nearest pixel of the other part.
- **Labels**: tokens of half of the windows are also told by their cosines with labelled tokens of the other half.

The plain loop's mean of a part is over all of its pixels, also the few without a height; the command leaves these out.
Mask diffusion without whitening, masks over groups of bands in mask diffusion, other numbers of steps, averaged weights
and features of earlier layers were not measured here. Each objective was run once, from one seed.
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
    parts += _captions(json.loads(LANGUAGE.read_text()))
    parts += _objectives(json.loads(OBJECTIVES.read_text()))
    tries = json.loads(TRIES.read_text())
    parts.append("## What was tried\n")
    parts.append(tries["config"]["said"] + "\n")
    parts.append(table(tries["rows"]))
    return "\n".join(parts)


def _captions(measured: Mapping[str, Any]) -> list[str]:
    """The section on captions."""
    rows = measured["rows"]
    names = [row for row in rows if row["part"] == "names alone"]
    plain = [{key: _plain(value) for key, value in row.items() if key != "part"} for row in names]
    figures = [key for key, value in names[0].items() if isinstance(value, float)]
    for kind in ("generated", "real"):
        of_kind = [row for row in names if row["kind"] == kind]
        mean = {key: _plain(fmean(row[key] for row in of_kind)) for key in figures}
        plain.append({"scene": "mean", "kind": kind, **mean})
    keys = ("kind", "readout")
    return [
        "## Captions as a second objective\n",
        "    python benchmarks/language.py\n",
        listed(measured["machine"]),
        _CAPTIONS,
        "What captions add to the contrast alone:\n",
        table(by_shots(rows, "means", keys)),
        "Scene by scene, with the kernel head, without class names:\n",
        table(by_shots([row for row in rows if row.get("readout") == "kernel head"], "few-shot", ("kind", "scene"))),
        "Class names alone, without a shot, in percent:\n",
        table(plain),
    ]


def _objectives(measured: Mapping[str, Any]) -> list[str]:
    """The section on objectives beside each other."""
    parts = [
        "## Objectives beside each other\n",
        "    python benchmarks/objectives.py --real\n",
        listed(measured["machine"]),
        _BESIDE,
    ]
    for said, place, readout in (
        ("Generated scenes outside of pretraining, with the kernel head:", "outside", "kernel head"),
        ("Real scenes, none in pretraining, with the kernel head:", "real", "kernel head"),
        ("Generated scenes inside of pretraining, with the kernel head:", "inside", "kernel head"),
        ("Generated scenes outside of pretraining, the nearest neighbour in features:", "outside", "nearest"),
    ):
        of_place = [row for row in measured["rows"] if (row["place"], row["readout"]) == (place, readout)]
        parts += [f"{said}\n", table(by_shots(of_place, "means", ("try",)))]
    return parts


def _plain(value: Any) -> Any:
    return f"{value:.1f}" if isinstance(value, float) else value


def by_encoder(rows: Sequence[Mapping[str, Any]], part: str) -> list[dict[str, Any]]:
    """A line for each encoder and place, or scene, with a column a count of shots."""
    keys = _KEYS if part == "means" else (*(key for key in _KEYS if key != "readout"), "scene")
    return by_shots(rows, part, keys)


def by_shots(rows: Sequence[Mapping[str, Any]], part: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    """A line for each combination of the keys' values, with a column a count of shots."""
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        if row["part"] != part:
            continue
        found = {key: row[key] for key in keys if key in row}
        line = lines.setdefault(tuple(found.values()), found)
        low, high = row[f"{LOWEST}gain_oa_percent"], row[f"{HIGHEST}gain_oa_percent"]
        line[f"{row['shots']} shots"] = f"{row['gain_oa_percent']:+.1f} [{low:+.1f}, {high:+.1f}]"
        if part == "means":
            line[f"scenes ahead, {row['shots']} shots"] = f"{row['ahead_scenes']} of {row['scenes']}"
    return list(lines.values())


if __name__ == "__main__":
    sys.exit(run_command(main))
