"""``diffclip completion SHELL``: the shell itself completes commands, options, choices and file names."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from diffclip_dist.cli.main import COMMANDS, main

ZSHRC = """
fpath=($ZDOTDIR $fpath)
autoload -Uz compinit && compinit -u -D
diffclip() { print -r -- "given: $*" }
PS1="ready> "
"""


@pytest.fixture
def script(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Path:
    """The script for a shell, as a user writes it into a file; the test skips where the shell is absent."""
    shell = request.param
    if shutil.which(shell) is None:
        pytest.skip(f"this machine has no {shell}")
    monkeypatch.setattr("sys.argv", ["diffclip", "completion", shell])
    assert main() == 0
    file = tmp_path / {"bash": "diffclip", "zsh": "_diffclip", "fish": "diffclip.fish"}[shell]
    file.write_text(capsys.readouterr().out)
    (tmp_path / "archive-of-mine").mkdir()
    return file


def offered_by_bash(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    line = " ".join(words)
    quoted = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; '
        '$(complete -p diffclip | sed "s/.*-F \\([^ ]*\\) .*/\\1/") diffclip; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, cwd=script.parent)
    return done.stdout.split()


def offered_by_fish(script: Path, line: str) -> list[str]:
    """What fish offers for the last word of a line."""
    asked = ["fish", "--no-config", "-c", f"source {script}; complete -C '{line}'"]
    environment = {**os.environ, "HOME": str(script.parent)}
    done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=script.parent, env=environment)
    return [offered.partition("\t")[0] for offered in done.stdout.splitlines()]


def completed_by_zsh(script: Path, line: str) -> str:
    """The words of a command after the Tab key at the end of a line."""
    (script.parent / ".zshrc").write_text(ZSHRC)
    environment = {**os.environ, "ZDOTDIR": str(script.parent), "TERM": "dumb"}
    keyboard, terminal = os.openpty()
    with subprocess.Popen(
        ["zsh", "-i"], stdin=terminal, stdout=terminal, stderr=terminal, cwd=script.parent, env=environment,
        start_new_session=True,
    ) as shell:  # fmt: skip
        os.close(terminal)
        try:
            _until("ready> ", keyboard)
            os.write(keyboard, f"{line}\t\n".encode())
            said = _until("ready> ", keyboard)
        finally:
            shell.kill()
            os.close(keyboard)
    return said.partition("given: ")[2].splitlines()[0]


def _until(wanted: str, keyboard: int) -> str:
    said = ""
    while wanted not in said:
        said += os.read(keyboard, 4096).decode()
    return said


@pytest.mark.parametrize("script", ["bash"], indirect=True)
def test_bash_completes_commands_options_choices_and_files(script: Path) -> None:
    assert {*COMMANDS, "benchmark"} <= {*offered_by_bash(script, "diffclip", "")}
    assert offered_by_bash(script, "diffclip", "few") == ["fewshot"]
    assert offered_by_bash(script, "diffclip", "pretrain", "--zero") == ["--zero-stage"]
    assert offered_by_bash(script, "diffclip", "fewshot", "--protocol", "b") == ["blocks"]
    assert offered_by_bash(script, "diffclip", "benchmark", "acc") == ["accuracy"]
    assert offered_by_bash(script, "diffclip", "fewshot", "--archive", "archive-of") == ["archive-of-mine"]


@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish_completes_commands_options_choices_and_files(script: Path) -> None:
    assert {*COMMANDS, "benchmark"} <= {*offered_by_fish(script, "diffclip ")}
    assert offered_by_fish(script, "diffclip few") == ["fewshot"]
    assert offered_by_fish(script, "diffclip pretrain --zero") == ["--zero-stage"]
    assert offered_by_fish(script, "diffclip fewshot --protocol b") == ["blocks"]
    assert offered_by_fish(script, "diffclip benchmark acc") == ["accuracy"]
    assert offered_by_fish(script, "diffclip fewshot --archive archive-of") == ["archive-of-mine/"]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("script", ["zsh"], indirect=True)
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("diffclip few", "fewshot"),
        ("diffclip pretrain --zero", "pretrain --zero-stage"),
        ("diffclip fewshot --protocol b", "fewshot --protocol blocks"),
        ("diffclip benchmark acc", "benchmark accuracy"),
        ("diffclip fewshot --archive archive-of", "fewshot --archive archive-of-mine"),
    ],
)
def test_zsh_completes_commands_options_choices_and_files(script: Path, line: str, completed: str) -> None:
    assert completed_by_zsh(script, line) == completed


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shells_script_knows_every_command_and_its_syntax_is_right(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["diffclip", "completion", shell])
    assert main() == 0
    written = capsys.readouterr().out
    assert all(name in written for name in COMMANDS)
    assert "global-batch" in written
    if (program := shutil.which(shell)) is not None:
        (tmp_path / "script").write_text(written)
        subprocess.run([program, "-n", str(tmp_path / "script")], check=True)
