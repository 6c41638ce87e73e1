"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from checkpoints import DENSE, TINY, tiny_checkpoint
from click.testing import CliRunner

import bitinfer
from bitinfer.cli import command_names, main
from bitinfer.model import Model

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    "BITINFER_NUM_THREADS": "1",
}


def run(*arguments: object, stdin: str = "", **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bitinfer", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=ENVIRONMENT | environment,
        check=False,
    )


def run_inside(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess:
    """The same within this process, which is quicker."""
    done = CliRunner().invoke(main, list(map(str, arguments)), input=stdin, prog_name="bitinfer")
    return subprocess.CompletedProcess((), done.exit_code, done.stdout, done.stderr)


def assert_one_line_error(done: subprocess.CompletedProcess, *parts: str, code: int = 1) -> None:
    assert done.returncode == code, done
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(part in done.stderr for part in parts), done.stderr


def test_bare_command_greets() -> None:
    done = run()
    assert done.returncode == 0
    assert all(f"bitinfer {name}" in done.stdout for name in ("chat", "generate", "convert"))
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


def test_a_mistyped_command_names_the_one_that_may_be_meant() -> None:
    assert_one_line_error(run_inside("caht"), "did you mean 'chat'?", code=2)
    assert_one_line_error(run_inside("zzz"), "zzz", code=2)


@pytest.mark.parametrize("name", ["", *command_names()])
def test_help_has_examples_and_fits_80_columns(name) -> None:
    done = run_inside(*name.split(), "--help")
    assert "Examples" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


@pytest.mark.parametrize("name", ["history", "config"])
def test_a_group_alone_explains_itself(name) -> None:
    done = run_inside(name)
    assert done.returncode == 0
    assert done.stdout == run_inside(name, "--help").stdout


def test_version_and_help_import_no_engine() -> None:
    assert run("--version").stdout == f"bitinfer {bitinfer.__version__}\n"
    script = (
        "import sys; from bitinfer.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "slow = {'numpy', 'tokenizers', 'jinja2', 'rich', 'prompt_toolkit'}\n"
        "assert not slow & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, check=True, text=True)
    assert done.returncode == 0


def test_generate_prints_the_text_and_nothing_else() -> None:
    done = run("generate", "--max-tokens", 12, "--temperature", 0, "Once upon a time")
    with Model.load("tales-14m") as model:
        expected = model.generate("Once upon a time", max_tokens=12, temperature=0).text
    assert (done.stdout, done.stderr) == (expected + "\n", "")


def test_generate_reads_the_prompt_from_stdin() -> None:
    options = ("generate", "--model", bitinfer.default_model(), "--max-tokens", 8, "--seed", 3)
    assert run(*options, stdin="The dog\n").stdout == run(*options, "The dog").stdout


def test_stop_option_ends_before_the_text() -> None:
    done = run("generate", "--temperature", 0, "--stop", "girl", "Once upon a time")
    assert done.stdout.rstrip("\n").endswith("little ")


def test_info_json_tells_model_and_machine() -> None:
    facts = json.loads(run("info", "--json").stdout)
    assert facts["model"]["parameters"] == 14_173_568
    assert facts["machine"]["available_isas"] == bitinfer.available_isas()
    assert facts["machine"]["active_isa"] == bitinfer.active_isa()
    assert facts["machine"]["threads"] == 1


def test_info_fits_a_terminal() -> None:
    lines = run("info").stdout.splitlines()
    assert any(line.startswith("active isa") for line in lines)
    assert all(len(line) <= 80 for line in lines if not line.startswith("path"))


def test_isa_is_chosen_by_the_environment() -> None:
    facts = json.loads(run("info", "--json", BITINFER_ISA="scalar").stdout)
    assert facts["machine"]["active_isa"] == "scalar"
    assert_one_line_error(run("info", BITINFER_ISA="z80"), "z80", "scalar")


def test_convert_then_generate(tmp_path, raw_checkpoint) -> None:
    target = tmp_path / "packed model"
    done = run("convert", raw_checkpoint, target, "--packing", "i2")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(target) in done.stdout
    assert run("generate", "--model", target, "--max-tokens", 2, "Hi").returncode == 0


def test_a_model_made_ternary_comes_with_a_warning(tmp_path) -> None:
    source = tiny_checkpoint(tmp_path / "dense", DENSE, form="master")
    target = tmp_path / "packed"
    assert_one_line_error(run_inside("convert", source, target), "dense", "--ternarize absmean")
    done = run_inside("convert", source, target, "--ternarize", "absmean")
    assert done.returncode == 0
    assert done.stderr.startswith("warning: if these are not the masters of a ternary")


def test_export_says_what_it_wrote_and_for_whom(tmp_path) -> None:
    target = tmp_path / "tales.gguf"
    done = run_inside("export", "tales-14m", target, "--gguf", "i2_s")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(target) in done.stdout
    assert "architecture bitnet-b1.58, read by bitnet.cpp" in done.stdout
    assert_one_line_error(
        run_inside("export", "tales-14m", target, "--gguf", "i2_s"), str(target), "--force"
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("nope",), "nope"),
        (("export", "tales-14m", "x.gguf"), "--gguf"),
        (("chat", "--nope"), "--nope"),
        (("generate", "--top-p", 3, "x"), "--top-p"),
        (("generate", "--max-tokens", 0, "x"), "--max-tokens"),
        (("convert", "only-one"), "TARGET"),
        (("convert", "a", "b", "--ternarize", "sign"), "absmean"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments, part) -> None:
    assert_one_line_error(run_inside(*arguments), part, "--help", code=2)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("generate", "--model", "no-such", "x"), ("no-such", "tales-14m")),
        (("info", "no-such"), ("no-such",)),
        (("convert", "no-such", "out"), ("no-such",)),
        (("generate", "--context-length", 4, "one two three four"), ("prompt", "at most 3")),
        (("chat", "--context-length", 99999), ("context_length", "1024")),
    ],
)
def test_failure_is_one_line_and_exit_code_1(arguments, parts) -> None:
    assert_one_line_error(run_inside(*arguments, stdin="x"), *parts)


def test_debug_shows_the_traceback() -> None:
    done = run("info", "no-such", BITINFER_DEBUG="1")
    assert "Traceback" in done.stderr
    assert done.returncode == 1


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shell")
def test_closed_pipe_is_silent() -> None:
    command = f"{sys.executable!r} -m bitinfer generate --max-tokens 300 --seed 1 Once | head -c 9"
    done = subprocess.run(
        command, shell=True, capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert len(done.stdout) == 9
    assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_exits_with_130_and_no_traceback() -> None:
    command = [sys.executable, "-m", "bitinfer", "chat"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("Hi\n")
        process.stdin.flush()
        assert process.stdout.readline()  # it runs, and waits for more
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.strip()) == (130, "")


def test_text_that_the_terminal_cannot_show_is_no_error() -> None:
    done = run("generate", "--max-tokens", 3, "é", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 0


@pytest.fixture
def raw_checkpoint(tmp_path):
    """A tiny Hugging Face checkpoint with the embedded model's tokenizer."""
    folder = tiny_checkpoint(tmp_path / "raw", {**TINY, "vocab_size": 4096})
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(bitinfer.default_model() / name, folder / name)
    return folder


def test_a_missing_tokenizer_is_told_before_the_weights_are_touched(raw_checkpoint):
    (raw_checkpoint / "tokenizer.json").unlink()
    (raw_checkpoint / "model.safetensors").write_bytes(b"never read")
    done = run_inside("generate", "-m", raw_checkpoint, "Hi")
    assert_one_line_error(done, f"tokenizer.json in {raw_checkpoint}: file not found")
