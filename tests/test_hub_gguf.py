"""Repositories that hold GGUF files: which one is taken, and how it is kept."""

from __future__ import annotations

import re

import numpy as np
import pytest
from checkpoints import TINY, make_tensors
from fake_hub import REPO, WEIGHTS, silent
from gguf_files import gguf_bytes
from gguf_models import WIDE, config_keys, model_tensors
from huggingface_hub import constants

from bitinfer.engine import Engine
from bitinfer.errors import HubError
from bitinfer.formats.gguf_files import is_named_dense
from bitinfer.hub.inventory import list_models
from bitinfer.hub.names import ModelName, parse_name
from bitinfer.hub.pull import open_model, pull
from bitinfer.hub.verify import verify
from bitinfer.model_folder import find_model

CONFIG = {**TINY, **WIDE, "num_hidden_layers": 1}
IDS = [5, 6, 7]


def gguf(seed=0):
    stored, trits = make_tensors(CONFIG, seed=seed)
    return gguf_bytes(model_tensors(stored, trits, "TQ2_0"), config_keys("bitnet", CONFIG))


NAMES = {
    "m-Q4_K_M.gguf": True,
    "m.q8_0.gguf": True,
    "m-IQ3_XXS.gguf": True,
    "m-iq2_bn.gguf": False,  # ik_llama.cpp's ternary type; the header will tell
    "m-i2_s-embed-q6_k.gguf": False,
    "m-f16.gguf": False,
    "model.gguf": False,
}
FILES = {"x-f16.gguf": gguf(1), "x-TQ2_0.gguf": gguf(), "mine.gguf": gguf(2), "config.json": b"{}"}


def logits_of(path):
    return Engine.load(path, num_threads=1).logits(IDS)


def logits(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    return logits_of(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "revision", "file"),
    [
        ("owner/name:model-i2_s.gguf", "main", "model-i2_s.gguf"),
        ("owner/name@v1:i2_s", "v1", "i2_s"),
    ],
)
def test_a_name_may_end_in_a_file(text, revision, file):
    assert parse_name(text) == ModelName("owner/name", revision, file)
    assert str(parse_name(text)) == text
    assert parse_name("2b4t-gguf:i2_s").repo == "microsoft/bitnet-b1.58-2B-4T-gguf"


@pytest.mark.parametrize("text", ["owner/name:", "owner/name:a/b", "owner/name:../x", ":x"])
def test_what_can_be_no_file_is_no_name(text):
    assert parse_name(text) is None


def test_what_is_not_ternary_is_told_by_its_name():
    assert {name: is_named_dense(name) for name in NAMES} == NAMES


def test_the_only_file_is_taken_whatever_its_name(hub, tmp_path):
    hub.files = {"mine.gguf": FILES["mine.gguf"], "README.md": b"text", "config.json": b"{}"}
    folder = find_model(REPO)
    assert np.array_equal(logits_of(folder), logits("mine.gguf", tmp_path))
    assert hub.fetched("config.json") == []
    assert verify(list_models()[0].record, silent) == []


def test_of_several_the_ternary_type_in_the_name_decides_or_the_user(hub, tmp_path):
    hub.files = dict(FILES)
    by_rule = find_model(REPO)
    chosen = {part: find_model(f"{REPO}:{part}") for part in ("mine.gguf", "F16", "tq2")}
    assert np.array_equal(logits_of(by_rule), logits("x-TQ2_0.gguf", tmp_path))
    assert np.array_equal(logits_of(chosen["mine.gguf"]), logits("mine.gguf", tmp_path))
    assert np.array_equal(logits_of(chosen["F16"]), logits("x-f16.gguf", tmp_path))
    assert chosen["tq2"] == by_rule
    assert len(list_models()) == 4
    hub.requests.clear()
    assert find_model(f"{REPO}:mine.gguf") == chosen["mine.gguf"]
    assert hub.requests == []


def test_safetensors_come_first_and_a_file_can_be_asked_for(hub, tmp_path):
    hub.files["mine.gguf"] = FILES["mine.gguf"]
    pull(ModelName(REPO), silent)
    assert hub.fetched(WEIGHTS)
    assert hub.fetched("mine.gguf") == []
    folder = pull(ModelName(REPO, file="mine"), silent)
    assert np.array_equal(logits_of(folder), logits("mine.gguf", tmp_path))


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        (["a.gguf", "b.gguf"], None, f"got a.gguf, b.gguf: name the one to take, as {REPO}:a.gguf"),
        (["a.gguf", "b.gguf"], "c", f"got a.gguf, b.gguf: name the one to take, as {REPO}:a.gguf"),
        (["m-Q4_K_M.gguf"], None, "got m-Q4_K_M.gguf, which by its name is not ternary: llama.cpp"),
        (["m-q8_0.gguf", "m-iq2_xs.gguf"], "iq2", "got m-iq2_xs.gguf, which by its name is not"),
        (["sub/a.gguf"], None, "got no weights"),
    ],
)
def test_a_file_that_cannot_be_taken_is_refused_before_it_is_fetched(hub, files, asked, message):
    hub.files = dict.fromkeys(files, FILES["mine.gguf"])
    with pytest.raises(HubError, match=re.escape(message)):
        pull(ModelName(REPO, file=asked), silent)
    assert not any(path.startswith("/cdn") for path, _ in hub.requests)


def test_offline_a_file_that_another_program_pulled_is_packed(hub, tmp_path, monkeypatch):
    hub.files = dict(FILES)
    name = ModelName(REPO, file="mine.gguf")
    pull(name, silent)
    monkeypatch.setenv("BITINFER_HUB", str(tmp_path / "another"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert np.array_equal(logits_of(open_model(name, silent)), logits("mine.gguf", tmp_path))
