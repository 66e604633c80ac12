"""``diffclip completion SHELL``: the shell itself completes commands, options, choices and file names."""

import shutil
import subprocess
from pathlib import Path

import pytest

from diffclip_dist.cli.main import COMMANDS, main


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The script for bash, as a user writes it into a file."""
    monkeypatch.setattr("sys.argv", ["diffclip", "completion", "bash"])
    assert main() == 0
    file = tmp_path / "diffclip"
    file.write_text(capsys.readouterr().out)
    return file


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("this machine has no bash")
    line = " ".join(words)
    quoted = " ".join(f"'{word}'" for word in words)
    asked = (
        f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
        f'COMP_LINE="{line}"; COMP_POINT={len(line)}; '
        '$(complete -p diffclip | sed "s/.*-F \\([^ ]*\\) .*/\\1/") diffclip; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run([bash, "-c", asked], capture_output=True, text=True, check=True, cwd=script.parent)
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(script: Path) -> None:
    (script.parent / "archive-of-mine").mkdir()
    assert {*COMMANDS, "benchmark"} <= {*completed(script, "diffclip", "")}
    assert completed(script, "diffclip", "few") == ["fewshot"]
    assert completed(script, "diffclip", "pretrain", "--zero") == ["--zero-stage"]
    assert completed(script, "diffclip", "fewshot", "--protocol", "b") == ["blocks"]
    assert completed(script, "diffclip", "benchmark", "acc") == ["accuracy"]
    assert completed(script, "diffclip", "fewshot", "--archive", "archive-of") == ["archive-of-mine"]


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
