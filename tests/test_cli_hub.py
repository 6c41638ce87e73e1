"""pull, list, show, verify, rm, and models of the hub as arguments of other commands."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from fake_hub import COMMIT, REPO, WEIGHTS
from huggingface_hub import constants
from test_cli import assert_one_line_error, run_inside

from bitinfer.cli.bytes_bar import Lines, bytes_bar


def test_pull_prints_plain_lines_and_how_to_go_on(hub):
    done = run_inside("pull", REPO)
    assert done.returncode == 0, done
    assert f"{REPO}: ready" in done.stdout
    assert f"'bitinfer chat {REPO}'" in done.stdout
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["download", "pack"]
    assert "\x1b" not in done.stderr
    assert "\r" not in done.stderr


def test_a_name_pulls_at_its_first_use_and_is_silent_at_its_second(hub):
    arguments = ("generate", "--model", REPO, "--max-tokens", 3, "--seed", 1, "Once")
    first, second = run_inside(*arguments), run_inside(*arguments)
    assert first.returncode == second.returncode == 0, first
    assert first.stdout == second.stdout
    assert "download" in first.stderr
    assert second.stderr == ""


def test_chat_takes_the_model_as_its_argument(hub):
    hub.files["chat_template.jinja"] = b"{{ messages[0].content }}"
    asked = ["--no-history", "--max-tokens", 3, "--seed", 1]
    done = run_inside("chat", REPO, *asked, stdin="Hi\n")
    same = run_inside("chat", "--model", REPO, *asked, stdin="Hi\n")
    assert done.returncode == same.returncode == 0, done
    assert done.stdout == same.stdout != ""
    assert_one_line_error(run_inside("chat", REPO, "-m", REPO), "only one of them", code=2)


def test_list_and_show_tell_what_is_here(hub):
    assert "nothing was pulled" in run_inside("list").stdout
    run_inside("pull", f"{REPO}@v1")
    heading, line = run_inside("list").stdout.splitlines()
    assert heading.split()[:2] == ["model", "revision"]
    assert line.startswith(f"{REPO}  v1 ({COMMIT[:8]})")
    assert "packed" in line
    (facts,) = json.loads(run_inside("list", "--json").stdout)
    assert facts == json.loads(run_inside("show", f"{REPO}@v1", "--json").stdout)
    assert facts["source_bytes"] == sum(map(len, hub.files.values()))
    assert facts["commit"] == COMMIT
    assert Path(facts["folder"]).is_dir()
    assert "licence     mit" in run_inside("show", f"{REPO}@v1").stdout


def test_show_tells_what_is_known_of_a_model_that_is_not_here(hub):
    text = run_inside("show", "2b4t").stdout
    assert "microsoft/bitnet-b1.58-2B-4T" in text
    assert "not on this disk" in text
    assert "memory      745.1 MB" in text
    assert "licence     mit" in text
    names = run_inside("list", "--known").stdout
    assert all(len(line) <= 80 for line in names.splitlines())
    assert "2b4t" in json.loads(run_inside("list", "--known", "--json").stdout)
    assert hub.requests == []


def test_verify_names_the_file_and_the_command_that_mends_it(hub):
    run_inside("pull", REPO)
    assert run_inside("verify", REPO).returncode == 0
    weights = next(Path(constants.HF_HUB_CACHE).rglob(WEIGHTS)).resolve()
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    done = run_inside("verify", REPO)
    bad, mend = done.stdout.splitlines()
    assert done.returncode == 1
    assert f"{WEIGHTS}: expected the digest" in bad
    assert mend == f"'bitinfer pull --check {REPO}' mends it"
    assert run_inside("pull", "--check", REPO).returncode == 0
    assert run_inside("verify", REPO).returncode == 0


def test_rm_asks_on_a_terminal_only(hub, monkeypatch):
    run_inside("pull", REPO)
    assert_one_line_error(run_inside("rm", REPO), "--yes", code=2)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda stream: True)
    refused = run_inside("rm", REPO, stdin="n\n")
    assert f"Remove {REPO}, " in refused.stderr
    assert "nothing removed" in refused.stderr
    assert run_inside("rm", REPO, stdin="y\n").returncode == 0
    assert_one_line_error(run_inside("rm", REPO, "--yes"), "not on this disk", "bitinfer pull")


def test_errors_of_the_hub_are_one_line(hub):
    hub.token = "hf_secret"
    for command in (["pull", REPO], ["info", REPO], ["generate", "-m", REPO, "Once"]):
        assert_one_line_error(run_inside(*command), REPO, "HF_TOKEN")


@pytest.mark.parametrize("command", ["pull", "show", "verify", "rm"])
def test_what_can_be_no_name_is_wrong_usage(command):
    assert_one_line_error(run_inside(command, "a b"), "owner/name", "list --known", code=2)


def test_plain_lines_have_bytes_rate_and_time_left_and_are_few():
    seconds = iter([0.0, 1.0, 10.0, 10.5, 20.0, 21.0])
    lines = []
    report = Lines(lines.append, lambda: next(seconds))
    for done in (10, 20, 30, 31, 50, 50):
        report("download", done * 10**6, 50 * 10**6)
    assert lines == [
        "download: 30.0 MB of 50.0 MB, 2.0 MB/s, 0:10 left",
        "download: 50.0 MB of 50.0 MB, 2.0 MB/s",
    ]


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_gets_a_bar_without_colours_if_asked(no_color, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", no_color)
    with bytes_bar() as report:
        report("download", 10, 50 * 10**6)
        report("download", 25 * 10**6, 50 * 10**6)
    shown = terminal.getvalue()
    assert "25.0/50.0 MB" in shown
    assert ("\x1b[38;" in shown or "\x1b[3" in shown) == (not no_color)
