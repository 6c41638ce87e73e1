"""Names and signatures that programs rely on."""

import inspect
import os
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import bitinfer
from bitinfer.model import Model

LOAD = {
    "packing": "auto",
    "head": "int8",
    "kv_cache": "f16",
    "ffn": "auto",
    "weights": "auto",
    "num_threads": None,
    "context_length": None,
    "speculate": "auto",
    "draft_model": None,
    "progress": None,
}


def keyword_only(function):
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def test_all_is_sorted_and_every_name_is_there():
    assert bitinfer.__all__ == sorted(bitinfer.__all__)
    for name in bitinfer.__all__:
        assert getattr(bitinfer, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = bitinfer.nothing


def test_the_embedded_model_is_a_packed_folder():
    folder = bitinfer.default_model()
    assert isinstance(folder, Path)
    assert {"bitinfer.safetensors", "config.json", "tokenizer.json"} <= {
        path.name for path in folder.iterdir()
    }


def test_load_takes_its_options_by_keyword():
    assert keyword_only(Model.load) == LOAD
    assert next(iter(inspect.signature(Model.load).parameters)) == "path_or_name"


@pytest.mark.parametrize(
    ("method", "positional", "takes_options"),
    [
        ("generate", ["prompt"], True),
        ("generate_n", ["prompt", "n"], True),
        ("stream", ["prompt"], True),
        ("chat", ["messages"], True),
        ("chat_stream", ["messages"], True),
        ("logits", ["token_ids"], False),
    ],
)
def test_methods_of_a_model_keep_their_names(method, positional, takes_options):
    parameters = list(inspect.signature(getattr(Model, method)).parameters.values())[1:]
    options = [parameters.pop()] if takes_options else []
    assert [p.name for p in parameters] == positional
    assert [p.kind for p in options] == [inspect.Parameter.VAR_KEYWORD] * takes_options
    assert all("Unpack[GenerateOptions]" in p.annotation for p in options)


def test_a_tokenizer_encodes_without_special_tokens_unless_asked():
    from bitinfer.tokenizer import Tokenizer

    parameters = inspect.signature(Tokenizer.encode).parameters
    assert parameters["add_special_tokens"].default is False
    tokenizer = Model.load(bitinfer.default_model()).tokenizer
    ids = tokenizer.encode("Once upon a time")
    assert 1 not in ids  # the embedded model's <s>
    assert tokenizer.decode(ids) == "Once upon a time"


def test_a_completion_has_its_four_fields():
    fields = set(bitinfer.Completion.__dataclass_fields__)
    assert {"text", "token_ids", "finish_reason", "usage"} <= fields


def test_public_classes_and_functions_are_documented():
    for name in bitinfer.__all__:
        value = getattr(bitinfer, name)
        if callable(value):
            assert value.__doc__, name


def test_importing_the_package_does_not_import_the_tokenizer(tmp_path):
    code = "import sys, bitinfer; print('tokenizers' in sys.modules, 'jinja2' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["False", "False"]


def test_settings_can_be_shown_without_numpy(tmp_path):
    code = "import sys, bitinfer.sampling; print('numpy' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"


def test_the_package_is_typed():
    assert (Path(bitinfer.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize(
    ("core", "said"),
    [(None, "the compiled part is missing in"), (b"no library", "does not load here")],
)
def test_a_core_that_is_missing_or_damaged_is_told_in_one_sentence(tmp_path, core, said):
    package = tmp_path / "bitinfer"
    package.mkdir()
    for name in ("__init__.py", "errors.py"):
        (package / name).write_bytes((Path(bitinfer.__file__).parent / name).read_bytes())
    if core is not None:
        (package / f"_core{EXTENSION_SUFFIXES[0]}").write_bytes(core)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", "import bitinfer"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: bitinfer: the compiled part")
    assert said in last
