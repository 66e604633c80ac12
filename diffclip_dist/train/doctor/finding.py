"""One thing that was looked at, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Weight = Literal["good", "note", "stop"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Attributes:
        about: what was looked at, in a word or two.
        found: what is there.
        weight: ``stop`` would stop a run, ``note`` would not.
        remedy: what to do; empty where all is good.
    """

    about: str
    found: str
    weight: Weight = "good"
    remedy: str = ""

    def __str__(self) -> str:
        mark = {"good": "ok  ", "note": "note", "stop": "STOP"}[self.weight]
        return f"{mark}  {self.about:<12} {self.found}" + (f"; {self.remedy}" if self.remedy else "")
