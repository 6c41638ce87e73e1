"""Text that GGUF metadata get wrong: what bitnet.cpp's converters write, and what is made of it."""

from __future__ import annotations

import re

import pytest
from checkpoints import TINY, make_tensors
from gguf_files import ARRAY, STRING, gguf_bytes, key
from gguf_models import BOOL, F32, I32, U32, WIDE, model_tensors

from bitinfer.convert import convert
from bitinfer.model import Model

CONFIG = {**TINY, **WIDE, "num_hidden_layers": 1, "rope_theta": 500000.0}
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]
BOS, END, TURN = range(3)
TOKENS = [*SPECIAL, *dict.fromkeys("UserAsistantH:Ġ"), "Us"]
WRONG = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Human: ' + "
    "message['content'] + '\\n\\nBITNETAssistant: ' + eos_token }}{% endif %}{% endfor %}"
)
MESSAGES = [{"role": "user", "content": " Hi "}]


def official_keys(arch, template):
    """The keys of the official file, in its order, for a small vocabulary."""
    numbers = {
        "vocab_size": (U32, len(TOKENS)),
        "context_length": (U32, 4096),
        "embedding_length": (U32, CONFIG["hidden_size"]),
        "block_count": (U32, 1),
        "feed_forward_length": (U32, CONFIG["intermediate_size"]),
        "rope.dimension_count": (U32, CONFIG["head_dim"]),
        "attention.head_count": (U32, CONFIG["num_attention_heads"]),
        "attention.head_count_kv": (U32, CONFIG["num_key_value_heads"]),
    }
    later = {
        "attention.layer_norm_rms_epsilon": (F32, 1e-5),
        "rope.freq_base": (F32, 500000.0),
    }
    tokenizer = "tokenizer.ggml."
    return [
        key("general.architecture", STRING, arch),
        key("general.name", STRING, "bitnet2b"),
        *(key(f"{arch}.{name}", *field) for name, field in numbers.items()),
        key(tokenizer + "add_bos_token", BOOL, True),
        *(key(f"{arch}.{name}", *field) for name, field in later.items()),
        key("general.file_type", U32, 40),
        key(tokenizer + "model", STRING, "gpt2"),
        key(tokenizer + "tokens", ARRAY, (STRING, TOKENS)),
        key(tokenizer + "scores", ARRAY, (F32, [0.0] * len(TOKENS))),
        key(tokenizer + "token_type", ARRAY, (I32, [1] * len(TOKENS))),
        key(tokenizer + "merges", ARRAY, (STRING, ["U s"])),
        key(tokenizer + "bos_token_id", U32, BOS),
        key(tokenizer + "eos_token_id", U32, END),
        key(tokenizer + "padding_token_id", U32, END),
        *([key("tokenizer.chat_template", STRING, template)] if template else []),
        key("general.quantization_version", U32, 2),
    ]


@pytest.fixture
def make(tmp_path):
    def file(arch="bitnet-b1.58", template=WRONG):
        stored, trits = make_tensors({**CONFIG, "vocab_size": len(TOKENS)})
        keys = official_keys(arch, template)
        path = tmp_path / "ggml-model.gguf"
        path.write_bytes(gguf_bytes(model_tensors(stored, trits, "TQ2_0", embedding="F16"), keys))
        return path

    return file


def expected_ids(text):
    """Ids of a text without special tokens: one for each character, and one for "Us"."""
    return [TOKENS.index(piece) for piece in re.findall("Us|.", text.replace(" ", "Ġ"))]


@pytest.mark.parametrize("arch", ["bitnet-b1.58", "bitnet-25"])
@pytest.mark.parametrize("template", [WRONG, None])
def test_what_the_official_file_has_wrong_is_mended_and_said(make, tmp_path, arch, template):
    path = make(arch, template)
    prompt = [BOS, *expected_ids("User: Hi"), TURN, *expected_ids("Assistant: ")]
    for model_path in (path, convert(path, tmp_path / "packed")):
        with Model.load(model_path, num_threads=1) as model:
            assert model.encode_chat(MESSAGES) == prompt
            assert model.tokenizer.eos_token_ids == (END, TURN)
            assert model.engine.spec["eos_token_ids"] == [END, TURN]
            assert model.engine.spec["hidden_act"] == "relu2"
    with Model.load(path, num_threads=1) as model:
        notes = "\n".join(model.engine.notes)
    assert "tokenizer.ggml.pre is missing" in notes
    assert "<|eot_id|> (2) ends replies too" in notes
    assert "tokenizer.chat_template is not what the model was trained with: replaced" in notes


def test_a_system_message_and_turns_are_written_as_the_model_knows_them(make):
    with Model.load(make(), num_threads=1) as model:
        messages = [
            {"role": "system", "content": "Use"},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "H"},
            {"role": "user", "content": "A"},
        ]
        text = model.chat_template.render(messages).plain
    turns = ["System: Use", "User: Hi", "Assistant: H", "User: A", "Assistant: "]
    assert text == "<|eot_id|>".join(turns)


def test_a_template_that_somebody_mended_is_kept(make):
    with Model.load(make(template="{{ messages[0]['content'] }}"), num_threads=1) as model:
        assert model.chat_template.source == "{{ messages[0]['content'] }}"
        assert not any("chat_template" in note for note in model.engine.notes)
        assert model.tokenizer.eos_token_ids == (END, TURN)


def test_other_architectures_are_taken_at_their_word(make):
    with Model.load(make("bitnet"), num_threads=1) as model:
        assert model.chat_template.source == WRONG
        assert model.tokenizer.eos_token_ids == (END,)
        assert model.engine.spec["hidden_act"] == "silu"
