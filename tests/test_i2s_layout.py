"""The byte order of I2_S: found by reading a text, never guessed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from checkpoints import TINY, make_tensors, tiny_checkpoint
from gguf_files import gguf_bytes
from gguf_models import (
    WIDE,
    config_keys,
    embedded_model,
    embedded_tokenizer,
    model_tensors,
    tokenizer_keys,
)

import bitinfer
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import CheckpointError
from bitinfer.families import gguf_source
from bitinfer.formats.gguf_tiles import I2S_LAYOUTS
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.i2s_layout import LAYOUT_NAMES, clearly_lowest

IDS = [5, 6, 7, 8, 9]


def random_file(path, *, tokenizer=True, kind="I2_S"):
    config = {**TINY, **WIDE, "num_hidden_layers": 1, "vocab_size": 4096}
    stored, trits = make_tensors(config)
    keys = config_keys("bitnet", config)
    keys += tokenizer_keys(embedded_tokenizer()) if tokenizer else []
    path.write_bytes(gguf_bytes(model_tensors(stored, trits, kind), keys))
    return path


def notes_of(folder):
    return PackedFile(folder / PACKED_NAME).header.source["notes"]


@pytest.mark.parametrize("layout", I2S_LAYOUTS)
def test_the_order_of_a_trained_model_is_found(tmp_path, layout):
    file = embedded_model(tmp_path / "tales.gguf", f"I2_S {layout}")
    engine = Engine.load(file, head="source", num_threads=1)
    embedded = Engine.load(bitinfer.default_model(), head="source", num_threads=1)
    assert np.array_equal(engine.logits(IDS), embedded.logits(IDS))
    assert any(f"I2_S byte order: {layout}, found by" in note for note in engine.notes)


def test_the_order_and_how_it_was_found_stay_with_the_packed_file(tmp_path):
    file = embedded_model(tmp_path / "tales.gguf", "I2_S 4-row")
    (note,) = notes_of(convert(file, tmp_path / "packed"))
    assert note == "I2_S byte order: 4-row, found by reading a text in each"


def test_where_no_order_reads_the_text_the_user_is_asked(tmp_path):
    file = random_file(tmp_path / "random.gguf")
    with pytest.raises(CheckpointError, match=r"cannot be told.*--i2s-layout 128\|64\|4row"):
        Engine.load(file)
    with pytest.raises(CheckpointError, match=r"as it has no tokenizer: .*--i2s-layout"):
        Engine.load(random_file(tmp_path / "mute.gguf", tokenizer=False))
    (note,) = notes_of(convert(file, tmp_path / "packed", i2s_layout="64"))
    assert note == "I2_S byte order: 64-block, as asked"


def test_a_file_that_is_known_by_its_hash_is_not_probed(tmp_path, monkeypatch):
    import hashlib

    file = random_file(tmp_path / "random.gguf")
    content = file.read_bytes()
    known = {len(content): (hashlib.sha256(content).hexdigest(), "4-row")}
    monkeypatch.setattr(gguf_source, "_KNOWN_LAYOUTS", known)
    (note,) = notes_of(convert(file, tmp_path / "packed"))
    assert note == "I2_S byte order: 4-row, known by the file's SHA-256"
    file.write_bytes(content[:-32] + bytes(32))  # as long, but another
    with pytest.raises(CheckpointError, match="cannot be told"):
        convert(file, tmp_path / "packed")


def test_a_wrong_layout_is_misuse(tmp_path):
    with pytest.raises(ValueError, match="expected 128, 64, 4row, got '32'"):
        convert(random_file(tmp_path / "a.gguf"), tmp_path / "packed", i2s_layout="32")
    with pytest.raises(ValueError, match=r"expected none, as .* is no GGUF file"):
        convert(tiny_checkpoint(tmp_path / "hf"), tmp_path / "packed", i2s_layout="64")
    file = random_file(tmp_path / "b.gguf", kind="TQ2_0")
    with pytest.raises(ValueError, match=r"expected none, as .* has no I2_S tensors"):
        convert(file, tmp_path / "packed", i2s_layout="64")
    assert list(LAYOUT_NAMES) == ["128", "64", "4row"]


def test_an_order_is_taken_only_if_it_clearly_reads_the_text(rng):
    chance = math.log(50)

    def losses(mean, spread=2.0):
        noise = rng.normal(size=60)
        return mean + spread * (noise - noise.mean()) / noise.std(ddof=1)

    error = 2.0 / math.sqrt(60)
    well, wrong = losses(chance - 6.1 * error), losses(chance + 5)
    assert clearly_lowest({"a": wrong, "b": well}, 50) == "b"
    assert clearly_lowest({"b": well}, 50) == "b"
    assert clearly_lowest({"b": losses(chance - 5.9 * error)}, 50) is None
    assert clearly_lowest({"a": well, "b": well}, 50) is None
    assert clearly_lowest({"a": wrong, "b": losses(chance + 1)}, 50) is None
