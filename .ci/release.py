"""What `make release VERSION=0.2.0` does before and after it builds the wheel. Nothing is committed, tagged or sent.

python .ci/release.py prepare 0.2.0        # diffclip_dist/__init__.py gets the version, CHANGELOG.md its date
python .ci/release.py tag-message 0.2.0    # what the changelog says of it, for the tag
"""

import datetime
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
UNRELEASED = "## [Unreleased]\n"


def prepare(repository: Path, version: str, date: str) -> None:
    """Writes the version, and dates what is unreleased in the changelog.

    Raises:
        ValueError: the version was released or is below the present one, or nothing is unreleased.
    """
    init, changelog = repository / "diffclip_dist" / "__init__.py", repository / "CHANGELOG.md"
    source, text = init.read_text(), changelog.read_text()
    (present,) = re.findall(r'^__version__ = "(.*)"$', source, re.MULTILINE)
    if _numbers(version) < _numbers(present) or f"## [{version}]" in text:
        raise ValueError(f"VERSION={version}: expected one above {present}, the present one")
    if not _section(text, "Unreleased"):
        raise ValueError("CHANGELOG.md: nothing stands under [Unreleased]")
    changelog.write_text(text.replace(UNRELEASED, f"{UNRELEASED}\n## [{version}] - {date}\n", 1))
    init.write_text(source.replace(f'__version__ = "{present}"', f'__version__ = "{version}"'))


def tag_message(repository: Path, version: str) -> str:
    """The tag's message: what the changelog says of a version."""
    notes = _section((repository / "CHANGELOG.md").read_text(), version)
    # git takes lines that begin with # for comments
    return f"diffclip-dist {version}\n\n{re.sub(r'^#+ ', '', notes, flags=re.MULTILINE)}\n"


def _section(changelog: str, name: str) -> str:
    """What stands under a version's heading; empty where there is no such heading."""
    found = re.search(rf"^## \[{re.escape(name)}\].*\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)
    return "" if found is None else found[1].strip()


def _numbers(version: str) -> tuple[int, ...]:
    if re.fullmatch(r"\d+\.\d+\.\d+", version) is None:
        raise ValueError(f"VERSION={version}: expected three numbers, such as 0.2.0")
    return tuple(map(int, version.split(".")))


def main(task: str, version: str = "") -> int:
    """What the command does; its exit status."""
    if task == "tag-message":
        print(tag_message(REPOSITORY, version), end="")
        return 0
    try:
        status = ["git", "status", "--porcelain"]
        if changed := subprocess.run(status, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout:  # noqa: S603  git
            raise ValueError(f"the working tree has changes ({changed.split()[1]}); commit them first")
        prepare(REPOSITORY, version, datetime.date.today().isoformat())
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
