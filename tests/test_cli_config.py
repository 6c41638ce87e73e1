"""``bitinfer config``: what holds, where it comes from, and the file."""

from __future__ import annotations

import json
import os
import shlex
import sys

import pytest
from test_cli import assert_one_line_error, run, run_inside

from bitinfer.cli.config import _TEMPLATE
from bitinfer.cli.options import COMMON_SETTINGS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.fixture
def file(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    path.touch()
    monkeypatch.setenv("BITINFER_CONFIG", str(path))
    for name in list(os.environ):
        if name.startswith("BITINFER_") and name != "BITINFER_CONFIG":
            monkeypatch.delenv(name)
    return path


def test_json_tells_value_and_origin_of_every_setting(file, monkeypatch) -> None:
    file.write_text("# mine\ntemperature = 0.5\n[chat]\nseed = 7\n")
    monkeypatch.setenv("BITINFER_NUM_THREADS", "1")
    found = json.loads(run_inside("config", "show", "--json").stdout)
    common = found["common"]
    assert found["file"] == str(file)
    assert common.keys() <= {name.replace("_", "-") for name in COMMON_SETTINGS}
    assert common["temperature"] == {"value": 0.5, "origin": f"{file} line 2"}
    assert common["threads"] == {"value": 1, "origin": "BITINFER_NUM_THREADS"}
    assert common["packing"] == {"value": "auto", "origin": "default"}
    assert common["seed"] == {"value": None, "origin": "default"}
    assert found["chat"]["seed"] == {"value": 7, "origin": f"{file} line 4"}
    assert "seed" not in found.get("generate", {})


def test_what_is_shown_is_a_settings_file(file) -> None:
    file.write_text(
        "logit-bias = { 15 = -2.5, 16 = -inf }\nmodel = 'C:\\m \"x\" \\u'\nmin-p = 0.25\n"
        "[generate]\nmin-p = 0.125\n"
    )
    before = run_inside("config", "show")
    assert before.returncode == 0, before
    values = tomllib.loads(before.stdout)
    assert values["logit-bias"] == {"15": -2.5, "16": float("-inf")}
    assert values["model"] == 'C:\\m "x" \\u'
    assert (values["min-p"], values["generate"]["min-p"]) == (0.25, 0.125)
    file.write_text(before.stdout, encoding="utf-8")
    assert run_inside("config", "show").stdout == before.stdout


def test_origins_stand_behind_the_values(file) -> None:
    file.write_text("seed = 3\n")
    lines = run_inside("config", "show", "--origin").stdout.splitlines()
    assert lines[0] == f"# {file}"
    assert f"{'seed = 3':<32}  # {file} line 1" in lines
    assert f"{'# top-k =':<32}  # default" in lines


def test_path_is_told_even_if_the_file_is_broken(file) -> None:
    file.write_text("][")
    assert run_inside("config", "path").stdout == f"{file}\n"
    assert_one_line_error(run_inside("config", "show"), f"{file} line 1")
    assert_one_line_error(run_inside("generate", "Hi"), f"{file} line 1")


def test_a_mistake_of_any_command_is_found(file) -> None:
    file.write_text("[bench]\npaking = 3\n")
    assert_one_line_error(run_inside("config", "show"), "line 2: bench.paking", "packing?")
    file.write_text("[chta]\nseed = 3\n")
    assert_one_line_error(run_inside("config", "show"), "chta: no such setting", "chat?")


def test_the_flag_names_another_file(file, tmp_path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("seed = 9")
    done = run_inside("--config", other, "config", "show", "--json")
    assert json.loads(done.stdout)["common"]["seed"]["value"] == 9


def test_edit_makes_the_file_opens_the_editor_and_checks(file, tmp_path, monkeypatch) -> None:
    file.unlink()
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ncat "$1" > "$1.seen"\necho "$LINE" >> "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", shlex.quote(str(editor)))
    monkeypatch.setenv("LINE", "seed = 4")
    assert run_inside("config", "edit").returncode == 0
    assert file.with_name("config.toml.seen").read_text() == _TEMPLATE
    assert tomllib.loads(file.read_text()) == {"seed": 4}
    monkeypatch.setenv("LINE", "sed = 4")
    assert_one_line_error(run_inside("config", "edit"), "sed: no such setting", "seed?")


def test_show_fits_a_terminal(file) -> None:
    assert all(
        len(line) <= 80 for line in run("config", "show", "--origin").stdout.splitlines()[1:]
    )
