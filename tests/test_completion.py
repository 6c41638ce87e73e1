"""Shell completion, in the real shells where they are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys

import pytest
from terminal import Terminal
from test_cli import ENVIRONMENT, run


@pytest.fixture
def environment(tmp_path):
    """A PATH with ``bitinfer`` on it, and a folder with a model folder and a file."""
    program = tmp_path / "bin" / "bitinfer"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bitinfer "$@"\n')
    program.chmod(0o755)
    (tmp_path / "here" / "zebra-model").mkdir(parents=True)
    (tmp_path / "here" / "zebra.txt").touch()
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    return {**ENVIRONMENT, "PATH": path, "HOME": str(tmp_path), "PWD": str(tmp_path / "here")}


SHELLS = {
    "bash": (["bash", "--noprofile", "--norc", "-i"], ""),
    "zsh": (["zsh", "-f", "-i"], "autoload -U compinit && compinit -D -u; "),
}


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes_commands_options_choices_and_folders(shell, environment) -> None:
    """What was completed is run, and the program says what it was given."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    command, prepare = SHELLS[shell]
    with Terminal(command, environment, columns=200) as terminal:
        script = f'eval "$(bitinfer completion {shell})"; echo rea""dy\n'
        terminal.type(f'cd "{environment["PWD"]}"; {prepare}{script}')
        terminal.wait_for("ready\n")
        terminal.type("bitinfer gen\t--kv-c\ti\t--model zeb\t hello\n")
        terminal.wait_for("error: zebra-model")
        terminal.type("bitinfer hist\tsear\t--he\t\n")
        terminal.wait_for("Usage: bitinfer history search")


def test_fish_completes_commands_options_choices_and_folders(environment) -> None:
    if shutil.which("fish") is None:
        pytest.skip("no fish")
    lines = ["bitinfer gen", "bitinfer generate --kv-c", "bitinfer generate --kv-cache i"]
    lines += ["bitinfer generate --model zeb", "bitinfer generate --model tal"]
    script = "bitinfer completion fish | source\n" + "".join(
        f"complete -C {shlex.quote(line)}\n" for line in lines
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env=environment,
        cwd=environment["PWD"],
        capture_output=True,
        text=True,
    )
    found = [line.split("\t")[0] for line in done.stdout.splitlines()]
    assert found == ["generate", "--kv-cache", "int8", "zebra-model/", "tales-14m"]


def test_an_unknown_shell_is_wrong_usage() -> None:
    done = run("completion", "tcsh")
    assert done.returncode == 2
    assert "bash" in done.stderr


def test_a_broken_settings_file_does_not_break_completion(environment, tmp_path) -> None:
    broken = tmp_path / "config.toml"
    broken.write_text("][")
    asked = {"_BITINFER_COMPLETE": "bash_complete", "COMP_WORDS": "bitinfer generate --top-"}
    done = run(BITINFER_CONFIG=str(broken), COMP_CWORD="2", **asked)
    assert done.stdout.splitlines() == ["plain,--top-k", "plain,--top-p"]
