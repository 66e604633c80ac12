"""The known name that a misspelt one most likely stands for."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like `name`; None where none is.

    A known name with sections, such as ``optimiser.learning_rate``, is also found by its last part alone and by that
    part's initials (``lr``).
    """
    names = list(known)
    last_parts = {full.rpartition(".")[2]: full for full in reversed(names)}
    initials = {"".join(word[0] for word in part.split("_")): full for part, full in last_parts.items() if "_" in part}
    last = name.rpartition(".")[2]
    for exact in (last_parts.get(last), initials.get(last)):
        if exact is not None:
            return exact
    if like := get_close_matches(name, names, n=1):
        return like[0]
    like = get_close_matches(last, last_parts, n=1)
    return last_parts[like[0]] if like else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean X?``, or nothing, for the end of a message."""
    found = nearest(name, known)
    return "" if found is None else f"; did you mean {found}?"


def any_you_mean(names: Iterable[str], known: Iterable[str]) -> str:
    """`did_you_mean` for the first of several names that has a nearest one."""
    listed = list(known)
    return next((hint for name in names if (hint := did_you_mean(name, listed))), "")
