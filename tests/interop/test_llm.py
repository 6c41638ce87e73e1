"""The ``llm`` command with the plugin of ``integrations/llm-bitinfer``, installed as pip does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result
from served import QUESTION

from bitinfer.runtime import default_model

PLUGIN = Path(__file__).resolve().parents[2] / "integrations" / "llm-bitinfer"
ASKED = QUESTION[0]["content"]
Run = Callable[..., Result]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the plugin is installed; ``llm`` and the hub have folders of their own there."""
    folder = tmp_path_factory.mktemp("llm")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", folder / "plugin", PLUGIN], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLM_USER_PATH", str(folder / "user"))
        patch.setenv("LLM_LOAD_PLUGINS", "llm-bitinfer")  # others that are here may lack parts
        patch.setenv("HF_HOME", str(folder / "hub"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.syspath_prepend(folder / "plugin")
        yield folder


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    """Runs ``llm`` in this process, for its imports take seconds."""
    from llm.cli import cli

    return lambda *arguments: CliRunner().invoke(cli, arguments, prog_name="llm")


def test_the_command_lists_the_embedded_model(folder):
    paths = os.pathsep.join(map(str, sys.path))
    done = subprocess.run(
        [sys.executable, "-m", "llm", "models"],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    name = default_model().name
    assert f"BitinferModel: bitinfer/{name} (aliases: bitinfer)" in done.stdout


def test_pulled_models_are_listed_by_name_once_they_are_whole(folder, monkeypatch):
    import llm_bitinfer

    names = {"owner/whole": "packed", "owner/other@v2": "downloaded", "owner/half": "partial"}
    kept = [
        SimpleNamespace(state=state, record=SimpleNamespace(name=name))
        for name, state in names.items()
    ]
    monkeypatch.setattr(llm_bitinfer, "list_models", lambda: kept)
    found = []
    llm_bitinfer.register_models(lambda model, aliases=(): found.append(model.model_id))
    embedded = f"bitinfer/{default_model().name}"
    assert found == [embedded, "bitinfer/owner/whole", "bitinfer/owner/other@v2"]


def test_a_conversation_says_what_the_library_says(run, model):
    options = ("-m", "bitinfer", "-o", "temperature", "0", "-o", "max_tokens", "30")
    first = model.chat(QUESTION, temperature=0, max_tokens=30).text
    said = run(*options, ASKED)
    assert (said.stdout, said.exit_code) == (first + "\n", 0), said.stderr
    assert run(*options, "--no-stream", ASKED).stdout == first + "\n"
    messages = [
        *QUESTION,
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Tell me of a cat."},
    ]
    second = model.chat(messages, temperature=0, max_tokens=30).text
    assert run("-c", *options[2:], "Tell me of a cat.").stdout == second + "\n"
    logged = json.loads(run("logs", "--json", "-n", "1").stdout)[0]
    assert logged["response"] == second
    assert logged["output_tokens"] > 0


def test_a_schema_holds_and_an_instruction_counts(run, model):
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}}
    schema |= {"required": ["color"], "additionalProperties": False}
    told = run("-m", "bitinfer", "--schema", json.dumps(schema), "-s", "Be brief.", ASKED)
    assert json.loads(told.stdout)["color"] in ("red", "blue"), told.stderr
    messages = [{"role": "system", "content": "Be brief."}, *QUESTION]
    expected = model.chat(messages, seed=3, max_tokens=20).text
    options = ("-o", "seed", "3", "-o", "max_tokens", "20", "-s", "Be brief.")
    assert run("-m", "bitinfer", *options, ASKED).stdout == expected + "\n"


def test_an_error_is_one_line(run):
    for option, words in ((("temperature", "1000"), "temperature"), (("top_p", "x"), "top_p")):
        done = run("-m", "bitinfer", "-o", *option, ASKED)
        assert done.exit_code == 1
        assert words in done.stderr
        assert "Traceback" not in done.stderr
