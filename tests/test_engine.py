import json
import shutil
import warnings

import numpy as np
import pytest
from checkpoints import LLAMA, TINY, make_tensors, tiny_checkpoint, write_checkpoint

import bitinfer.engine
import bitinfer.loading
from bitinfer import _core
from bitinfer.convert import convert
from bitinfer.engine import Engine
from bitinfer.errors import ContextLengthError, PackedFileError, PromptError
from bitinfer.formats.packed import PACKED_NAME

IDS = [1, 7, 30, 2, 49, 0]


class _Patched:
    """The native module with some names replaced."""

    def __init__(self, **names):
        self.__dict__.update(names)

    def __getattr__(self, name):
        return getattr(_core, name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Raw and packed folders of the tied BitNet and the untied Llama checkpoint."""
    root = tmp_path_factory.mktemp("engine")
    made = {}
    for name, config in (("bitnet", TINY), ("llama", LLAMA)):
        made[name] = tiny_checkpoint(root / name, config)
        for head in ("int8", "source"):
            made[name, head] = convert(made[name], root / f"{name}-{head}", packing="i2", head=head)
    return made


@pytest.fixture
def engine(folders):
    return Engine.load(folders["bitnet", "int8"], num_threads=1)


@pytest.mark.parametrize("name", ["bitnet", "llama"])
@pytest.mark.parametrize("head", ["int8", "source"])
def test_raw_and_packed_folders_give_the_same_bits(folders, name, head):
    raw = Engine.load(folders[name], head=head).logits(IDS)
    assert raw.shape == (len(IDS), 50)
    assert raw.dtype == np.float32
    assert np.isfinite(raw).all()
    assert np.array_equal(Engine.load(folders[name, head], head=head).logits(IDS), raw)


@pytest.mark.parametrize("packing", ["i2", "t3", "t5", "auto"])
def test_every_packing_gives_the_same_bits(folders, engine, packing):
    other = Engine.load(folders["bitnet", "int8"], packing=packing)
    assert other.packing == (_core.auto_packing() if packing == "auto" else packing)
    assert np.array_equal(other.logits(IDS), engine.logits(IDS))


def test_a_tied_packed_model_has_both_heads_whatever_it_stores(folders):
    logits = {
        (stored, head): Engine.load(folders["bitnet", stored], head=head).logits(IDS)
        for stored in ("int8", "source")
        for head in ("int8", "source")
    }
    assert np.array_equal(logits["int8", "int8"], logits["source", "int8"])
    assert np.array_equal(logits["int8", "source"], logits["source", "source"])
    assert not np.array_equal(logits["int8", "int8"], logits["int8", "source"])


def test_an_untied_int8_head_has_no_source_left(folders):
    with pytest.raises(PackedFileError, match="convert the checkpoint again with --head source"):
        Engine.load(folders["llama", "int8"], head="source")


def test_an_int8_head_is_made_from_an_untied_source_head(folders):
    made = Engine.load(folders["llama", "source"], head="int8").logits(IDS)
    assert np.array_equal(made, Engine.load(folders["llama", "int8"]).logits(IDS))


def test_biases_are_added(tmp_path):
    config = {**LLAMA, "attention_bias": True}
    logits = []
    for bias in (0.0, 1.0):
        tensors, ternary = make_tensors(config)
        for module, t in ternary.items():
            if "self_attn" in module:
                tensors[f"{module}.bias"] = np.full(len(t), bias, np.float32)
        folder = write_checkpoint(tmp_path / str(bias), config, tensors)
        logits.append(Engine.load(folder).logits(IDS))
    assert not np.array_equal(*logits)


def test_decode_after_prefill_equals_the_whole_at_once(engine):
    whole = engine.logits(IDS)
    cache = engine.new_cache()
    assert cache.capacity == engine.context_length == 128
    first = engine.forward([IDS[:3]], [cache])
    steps = [engine.forward([[token]], [cache])[0] for token in IDS[3:]]
    assert np.array_equal(np.vstack([first, *steps]), whole[2:])
    assert cache.length == len(IDS)


def test_decode_is_forward_of_one_token(engine):
    whole, row = engine.logits(IDS), np.empty(50, np.float32)
    cache = engine.new_cache()
    for token_id, expected in zip(IDS, whole, strict=True):
        engine.decode(token_id, cache, row)
        assert np.array_equal(row, expected)
    assert cache.length == len(IDS)


def test_rows_of_a_batch_are_those_of_each_alone(engine):
    caches = [engine.new_cache(), engine.new_cache()]
    together = engine.forward([IDS, IDS[:2]], caches, logits="all")
    expected = np.vstack([engine.logits(IDS), engine.logits(IDS[:2])])
    assert np.array_equal(together, expected)


def test_no_logits_are_returned_where_none_are_asked(engine):
    assert engine.forward([IDS], [engine.new_cache()], logits="none").shape == (0, 50)


@pytest.mark.parametrize("kv_cache", ["f16", "f32", "int8"])
def test_new_caches_have_the_type_asked_for(folders, kv_cache):
    engine = Engine.load(folders["bitnet", "int8"], kv_cache=kv_cache)
    assert engine.new_cache(5).dtype == kv_cache
    assert engine.new_cache(5).capacity == 5


@pytest.mark.parametrize("ids", [[], [[1, 2]], [[1], [1, 2]], np.zeros((0,), np.int32)])
def test_no_tokens_are_a_prompt_error(engine, ids):
    for run in (engine.logits, lambda ids: engine.forward([ids], [engine.new_cache()])):
        with pytest.raises(PromptError, match="expected at least one token id"):
            run(ids)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 50], "whole numbers from 0 to 49, got 50 at position 1"),
        ([-1], "got -1 at position 0"),
        ([2**40], "got 1099511627776 at position 0"),
        ([1.5], "got values of type float64"),
        (["a"], "got values of type"),
        ([True], "got values of type bool"),
        ([2**70], "got values of type object"),
    ],
)
def test_ids_that_are_no_tokens_are_a_prompt_error(engine, ids, expected):
    with pytest.raises(PromptError) as caught:
        engine.logits(ids)
    assert expected in str(caught.value)


def test_more_tokens_than_the_context_are_a_context_length_error(folders):
    engine = Engine.load(folders["bitnet", "int8"], context_length=4)
    engine.logits([1] * 4)
    with pytest.raises(ContextLengthError, match="expected at most 4 tokens, the context, got 5"):
        engine.logits([1] * 5)
    cache = engine.new_cache()
    engine.forward([[1, 2, 3]], [cache])
    with pytest.raises(ContextLengthError, match="at most 1 more tokens in a context of 4, got 2"):
        engine.forward([[1, 2]], [cache])
    assert cache.length == 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"packing": "i3"}, "packing: expected auto, i2, t3, t5, b1, got 'i3'"),
        ({"head": "f16"}, "head: expected int8, source, 6+2, 5+3, got 'f16'"),
        ({"kv_cache": "f8"}, "kv_cache: expected f16, f32, int8, got 'f8'"),
        ({"num_threads": 0}, "num_threads: expected 1 to 256, got 0"),
        ({"num_threads": 257}, "num_threads: expected 1 to 256, got 257"),
        ({"context_length": 0}, "context_length: expected 1 to 128, got 0"),
        ({"context_length": 129}, "context_length: expected 1 to 128, got 129"),
    ],
)
def test_a_wrong_option_is_a_value_error(folders, options, expected):
    with pytest.raises(ValueError, match="expected") as caught:
        Engine.load(folders["bitnet", "int8"], **options)
    assert expected in str(caught.value)


def test_threads_default_to_the_environment_and_can_be_set(folders, monkeypatch):
    monkeypatch.setenv("BITINFER_NUM_THREADS", "3")
    engine = Engine.load(folders["bitnet", "int8"])
    assert engine.num_threads == 3
    engine.num_threads = 2
    assert engine.num_threads == 2
    with pytest.raises(ValueError, match="num_threads: expected 1 to 256, got 0"):
        engine.num_threads = 0


def test_packing_in_memory_is_noted_and_small_repacking_is_not(folders):
    (note,) = Engine.load(folders["bitnet"]).notes
    assert note.startswith("packed bitnet in memory")
    assert Engine.load(folders["bitnet", "int8"], packing="t3").notes == []


def test_large_repacking_is_noted(folders, monkeypatch):
    monkeypatch.setattr(bitinfer.loading, "_NOTED_BYTES", 1)
    notes = Engine.load(folders["bitnet", "source"], packing="t3").notes
    assert notes[0].endswith("from i2 to t3 in memory")
    assert notes[1].startswith("made an int8 head of")


@pytest.mark.parametrize(
    ("folder", "packing"), [("bitnet", "auto"), ("llama", "i2"), (("bitnet", "int8"), "t3")]
)
def test_packing_in_memory_tells_its_progress_up_to_the_end(folders, folder, packing):
    told = []
    Engine.load(folders[folder], packing=packing, progress=lambda *both: told.append(both))
    done, totals = zip(*told, strict=True)
    assert len(told) > 5
    assert list(done) == sorted(done)
    assert set(totals) == {done[-1]}


def test_a_folder_that_is_packed_as_asked_tells_no_progress(folders):
    told = []
    Engine.load(folders["bitnet", "int8"], packing="i2", progress=lambda *both: told.append(both))
    assert told == []


def test_weights_stay_usable_when_the_folder_is_replaced(folders, tmp_path):
    folder = shutil.copytree(folders["bitnet", "int8"], tmp_path / "m")
    engine = Engine.load(folder)
    expected = engine.logits(IDS)
    convert(tiny_checkpoint(tmp_path / "other", seed=1), folder)
    assert np.array_equal(engine.logits(IDS), expected)


def test_a_raw_file_whose_tensors_lie_unaligned_is_loaded(folders, tmp_path, monkeypatch):
    addresses = []

    def decoder(spec, weights, threads):
        addresses.extend(data.ctypes.data for data, _, _ in weights.values())
        return _core.Decoder(spec, weights, threads)

    folder = shutil.copytree(folders["bitnet"], tmp_path / "m")
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    text = content[8 : 8 + length].rstrip()
    text += b" " * ((8 + len(text)) % 2 == 0)  # data at an odd byte
    (folder / "model.safetensors").write_bytes(
        len(text).to_bytes(8, "little") + text + content[8 + length :]
    )
    expected = Engine.load(folders["bitnet"]).logits(IDS)
    monkeypatch.setattr(bitinfer.engine, "_core", _Patched(Decoder=decoder))
    assert np.array_equal(Engine.load(folder).logits(IDS), expected)
    assert addresses
    assert all(address % 4 == 0 for address in addresses)


def test_the_embedded_model_predicts(recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine = Engine.load(bitinfer.default_model())
    spec = engine.spec
    assert (engine.vocab_size, spec["bos_token_id"], spec["eos_token_ids"]) == (4096, 1, [2])
    logits = engine.logits([1])
    assert logits.shape == (1, 4096)
    assert logits.std() > 0.5
    header = json.loads((engine.folder / "config.json").read_text())
    assert header["hidden_size"] == spec["hidden_size"]
    assert (engine.folder / PACKED_NAME).stat().st_size < 8_000_000
