"""What a user sees of the commands before they work: help, misspelt words, missing libraries and Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from diffclip_dist.cli.benchmark import BENCHMARKS
from diffclip_dist.cli.commandline import run_command
from diffclip_dist.cli.main import COMMANDS, main, script_main
from shards.nearest import nearest

REPOSITORY = Path(__file__).resolve().parents[2]
# each takes from a third of a second to several seconds to import
HEAVY = ("torch", "ray", "deepspeed", "rasterio", "xarray", "zarr", "matplotlib", "scipy", "sklearn", "open_clip")
DIFFCLIP = "import sys; sys.argv[0] = 'diffclip'; from diffclip_dist.cli.start import main; sys.exit(main())"


def diffclip(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    """The command in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["diffclip", *words])
    try:
        return main()
    except SystemExit as ended:
        return int(ended.code or 0)


SCRIPTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("launch", "benchmarks")
    for path in (REPOSITORY / folder).glob("*.py")
    if 'if __name__ == "__main__"' in path.read_text()
)
# what each command says as a process of its own; all in one process, since none may import what takes long
ASKS_COMMANDS = """
import contextlib, io, json, runpy, sys
from pathlib import Path

repository, heavy, scripts, subcommands = json.loads(sys.argv[1])

def asked(words, run):
    sys.argv = words
    output, errors, status = io.StringIO(), io.StringIO(), None
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = run()
        except SystemExit as ended:
            status = ended.code
    said[" ".join(words)] = [status, output.getvalue(), errors.getvalue(), sorted({*heavy} & {*sys.modules})]

said = {}
for name in scripts:
    script = f"{repository}/{name}"
    sys.path[0] = str(Path(script).parent)
    for option in ("--help", "--no-such-option"):
        asked([name, option], lambda: runpy.run_path(script, run_name="__main__"))
sys.path[0] = repository
from diffclip_dist.cli.start import main
for words in subcommands:
    asked(["diffclip", *words, "--help"], main)
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Said:
    """How a command ended, what it printed, and the heavy libraries that are imported by then."""

    status: int
    output: str
    errors: str
    heavy: list[str]


@pytest.fixture(scope="session")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """By command line, what scripts and subcommands say; no file may be written."""
    folder = tmp_path_factory.mktemp("commands")
    subcommands = [(), *((name,) for name in (*COMMANDS, "benchmark"))]
    ask = json.dumps([str(REPOSITORY), HEAVY, SCRIPTS, subcommands])
    done = subprocess.run([sys.executable, "-c", ASKS_COMMANDS, ask], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(folder.iterdir())
    return {words: Said(*parts) for words, parts in json.loads(done.stdout).items()}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_explains_itself_and_imports_nothing_heavy_before(script: str, said: dict[str, Said]) -> None:
    help_, unknown = said[f"{script} --help"], said[f"{script} --no-such-option"]
    assert help_.status == 0, help_.errors
    assert help_.output.startswith(f"usage: {Path(script).name}")
    assert unknown.status == 2
    assert "Traceback" not in unknown.errors
    assert not unknown.heavy


@pytest.mark.parametrize("words", [(), *((name,) for name in (*COMMANDS, "benchmark"))], ids=" ".join)
def test_the_help_of_a_subcommand_imports_nothing_heavy(words: tuple[str, ...], said: dict[str, Said]) -> None:
    command = " ".join(["diffclip", *words])
    shown = said[f"{command} --help"]
    assert shown.output.startswith(f"usage: {command}")
    assert not shown.heavy


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_takes_what_its_subcommand_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diffclip(monkeypatch, name, "--help") == 0
    subcommand = capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit):
        script_main(name)
    script = capsys.readouterr().out
    plain = [text.replace(f"diffclip {name}", f"{name}.py").split() for text in (script, subcommand)]
    assert plain[0] == plain[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("shrad",), "shrad: no such command; did you mean shard?"),
        (("xyzzy",), "xyzzy: no such command (see diffclip --help)"),
        (("benchmark", "acuracy"), "acuracy: no such benchmark; did you mean accuracy?"),
        (("shard", "--tile-sise", "64"), "--tile-sise: no such option; did you mean --tile-size?"),
        (("shard", "--tile-sise=64"), "--tile-sise: no such option; did you mean --tile-size?"),
        (("pretrain", "--global"), "--global: no such option; did you mean --global-batch?"),
        (("predict", "--modle", "x"), "--modle: no such option; did you mean --model?"),
        (("fewshot", "--protocol", "rndom"), "argument --protocol: invalid choice: 'rndom'"),
        (("fewshot", "--protocol", "blcks"), "(choose from random, official, blocks); did you mean blocks?"),
        (("pretrain", "--dry-run", "--set", "preset=lrge"), "found lrge; did you mean large?"),
        (("predict", "--model", "x"), "required: --archive, --scene, --out"),
    ],
)
def test_a_misspelt_word_is_answered_in_one_line(
    words: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diffclip(monkeypatch, *words) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not captured.out


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("lr", "optimiser.learning_rate"), ("learning_rate", "optimiser.learning_rate"), ("model.dept", "model.depth"),
        ("wieght_decay", "optimiser.weight_decay"), ("steps", "steps"), ("qqqq", None),
    ],
)  # fmt: skip
def test_the_nearest_setting_is_found_by_its_last_part_or_initials(name: str, found: str | None) -> None:
    known = ("steps", "optimiser.learning_rate", "optimiser.weight_decay", "model.depth", "model.width")
    assert nearest(name, known) == found


def test_a_missing_library_is_answered_with_the_extra_that_installs_it(capsys: pytest.CaptureFixture[str]) -> None:
    def needs(library: str) -> int:
        raise ModuleNotFoundError(f"No module named {library!r}", name=library)

    assert run_command(lambda: needs("ray.train")) == 2
    assert capsys.readouterr().err == "error: this needs the library ray: pip install 'diffclip-dist[train]'\n"
    with pytest.raises(ModuleNotFoundError):
        run_command(lambda: needs("numpy"))


PREDICT = ("--model", "m", "--archive", "a", "--scene", "s", "--out", "o")


@pytest.mark.parametrize(
    ("command", "library", "sent", "status", "said"),
    [
        (("-c", DIFFCLIP, "predict", *PREDICT), "torch", signal.SIGINT, 130, "interrupted\n"),
        (("-c", DIFFCLIP, "predict", *PREDICT), "torch", signal.SIGTERM, 143, "terminated\n"),
        # what the options and the commands' first module import
        (("launch/pretrain.py",), "pydantic", signal.SIGINT, 130, "interrupted\n"),
        (("launch/shard.py", "x", "--out", "y"), "argparse", signal.SIGINT, 130, "interrupted\n"),
        (("-c", DIFFCLIP, "shard", "x", "--out", "y"), "argparse", signal.SIGINT, 130, "interrupted\n"),
    ],
)
def test_a_signal_during_imports_leaves_no_traceback(
    tmp_path: Path, command: tuple[str, ...], library: str, sent: signal.Signals, status: int, said: str
) -> None:
    (tmp_path / f"{library}.py").write_text("import time\nprint('importing', flush=True)\ntime.sleep(60)\n")
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    environment = {**os.environ, "PYTHONPATH": path}
    with subprocess.Popen(
        [sys.executable, *command], env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "importing\n"
        process.send_signal(sent)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (status, said)


def test_a_second_ctrl_c_ends_a_command_that_is_ending() -> None:
    script = """
import sys, time
from diffclip_dist.cli.commandline import run_command

def main():
    try:
        print("at work", flush=True)
        time.sleep(60)
    finally:
        print("ending", flush=True)
        time.sleep(60)

sys.exit(run_command(main))
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for said in ("at work\n", "ending\n"):
            assert process.stdout.readline() == said
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (130, "interrupted\n")


def test_a_benchmark_of_the_command_is_the_script(tmp_path: Path) -> None:
    for name in BENCHMARKS:
        assert (REPOSITORY / "benchmarks" / f"{name}.py").is_file()
    command = [sys.executable, "-c", DIFFCLIP, "benchmark", "throughput", "--no-such-option"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--no-such-option" in done.stderr


def test_shots_with_spaces_between_are_told_the_form_with_commas(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert diffclip(monkeypatch, "fewshot", "--shots", "1", "2", "5", "--quick") == 2
    said = capsys.readouterr().err
    assert "unrecognized arguments: 2 5; several numbers have commas between: --shots 1,2,5" in said
    assert diffclip(monkeypatch, "fewshot", "--seeds", "3", "4") == 2
    assert "commas" not in capsys.readouterr().err
