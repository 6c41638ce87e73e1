"""Write a packed model as GGUF for llama.cpp, the ternary matrices as TQ1_0, TQ2_0 or F16.

Every ternary weight and every norm is the same. llama.cpp's architecture ``bitnet`` gates with silu
whatever the model does, which changes no size. The embedding, which is also the head, is stored as
F16, or as Q6_K as by llama.cpp's own converter for the ternary types; the library ``gguf`` cannot
encode that, so it is done here. Token ids are all that most benchmarks need; a server wants words.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from bitinfer import _core
from bitinfer.families.spec import EMBEDDING
from bitinfer.formats.packed import PACKED_NAME, PackedFile

TERNARY_TYPES = ("TQ1_0", "TQ2_0")
EMBEDDING_TYPES = ("Q6_K", "F16")
_EMBEDDING_BLOCK_ROWS = 2048
_FLOATS = {"F32": np.float32, "F16": np.float16}
# Ours, in a layer -> llama.cpp's.
_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(
    folder: Path, out: Path, matrices: str, embedding: str, *, words: bool = False
) -> None:
    """Write the packed model of ``folder`` to ``out``, one tensor after the other.

    Args:
        folder: A packed model with sub-norms and a tied head; for TQ1_0, TQ2_0 and Q6_K its columns
            are multiples of 256.
        out: The GGUF file, replaced.
        matrices: Type of the ternary matrices: ``TQ1_0``, ``TQ2_0`` or ``F16``.
        embedding: One of `EMBEDDING_TYPES`.
        words: Whether the file says what text each token is.
    """
    file = PackedFile(folder / PACKED_NAME)
    spec = file.header.spec
    if not (spec["attn_sub_norm"] and spec["ffn_sub_norm"] and spec["tie_word_embeddings"]):
        raise SystemExit(f"{folder}: expected sub-norms and a tied head, as llama.cpp's bitnet has")
    writer = gguf.GGUFWriter(out, "bitnet")
    _add_spec(writer, spec)
    if words:
        _add_words(writer, folder)
    else:
        writer.add_tokenizer_model("no_vocab")
    kinds = {n: "F32" for n in file if n.startswith("model.") and n.endswith(".weight")}
    kinds |= dict.fromkeys(file.header.ternary, matrices) | {EMBEDDING: embedding}
    for name, kind in kinds.items():
        _add_tensor(writer, name, file.header.ternary.get(name) or file.tensor(name)[2], kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, kind in kinds.items():
        writer.write_tensor_data(_data(file, name, kind))
    writer.close()


def _add_tensor(writer: Any, name: str, shape: tuple[int, ...], kind: str) -> None:
    """Announce a tensor whose data follow later."""
    if kind in _FLOATS:
        dtype, quant, stored = np.dtype(_FLOATS[kind]), None, shape
    else:
        dtype, quant = np.dtype(np.uint8), gguf.GGMLQuantizationType[kind]
        stored = gguf.quant_shape_to_byte_shape(shape, quant)
    num_bytes = math.prod(stored) * dtype.itemsize
    writer.add_tensor_info(gguf_name(name), stored, dtype, num_bytes, quant)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if name == EMBEDDING:
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"


def _add_spec(writer: Any, spec: dict[str, Any]) -> None:
    writer.add_block_count(spec["num_hidden_layers"])
    writer.add_context_length(spec["max_position_embeddings"])
    writer.add_embedding_length(spec["hidden_size"])
    writer.add_feed_forward_length(spec["intermediate_size"])
    writer.add_head_count(spec["num_attention_heads"])
    writer.add_head_count_kv(spec["num_key_value_heads"])
    writer.add_rope_dimension_count(spec["head_dim"])
    writer.add_rope_freq_base(spec["rope_theta"])
    writer.add_layer_norm_rms_eps(spec["rms_norm_eps"])
    writer.add_vocab_size(spec["vocab_size"])


def _add_words(writer: Any, folder: Path) -> None:
    """The byte-level tokens of ``random_model.py``, the last two of them control tokens."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    tokens = sorted(ids, key=ids.__getitem__)
    *_, bos, eos = range(len(tokens))
    kinds = [gguf.TokenType.NORMAL] * bos + [gguf.TokenType.CONTROL] * 2
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([f"{tokens[-4]} {tokens[-3]}"])  # of words that no text has
    writer.add_bos_token_id(bos)
    writer.add_eos_token_id(eos)


def _data(file: PackedFile, name: str, kind: str) -> NDArray[Any]:
    """A tensor as it stands in the GGUF file."""
    if name in file.header.ternary:
        n, k = file.header.ternary[name]
        weights = _core.unpack(file.tensor(name)[0], file.header.packing, n, k)
        (scale,) = _floats(file, f"{name}_scale")
        return _encoded(weights * np.float32(scale), kind)
    if name == EMBEDDING:
        return np.concatenate([_encoded(rows, kind) for rows in _embedding_rows(file)])
    return _floats(file, name)


def _encoded(rows: NDArray[np.float32], kind: str) -> NDArray[Any]:
    if kind == "Q6_K":
        return q6_k(rows)
    encoded: NDArray[Any] = gguf.quants.quantize(rows, gguf.GGMLQuantizationType[kind])
    return encoded


def _embedding_rows(file: PackedFile) -> Iterator[NDArray[np.float32]]:
    rows, columns = file.tensor(EMBEDDING)[2]
    for row in range(0, rows, _EMBEDDING_BLOCK_ROWS):
        end = min(row + _EMBEDDING_BLOCK_ROWS, rows)
        yield _floats(file, EMBEDDING, row * columns, end * columns).reshape(end - row, columns)


def _floats(
    file: PackedFile, name: str, begin: int = 0, end: int | None = None
) -> NDArray[np.float32]:
    """Values ``begin`` to ``end`` of a float tensor, flat."""
    data, dtype, _ = file.tensor(name)
    if dtype == "bf16":
        return (data.view(np.uint16)[begin:end].astype(np.uint32) << 16).view(np.float32)
    stored = np.dtype({"f16": np.float16, "f32": np.float32}[dtype])
    return data.view(stored)[begin:end].astype(np.float32)


def q6_k(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Rows of floats as Q6_K: six bits a value, an int8 scale for 16, an f16 scale for 256.

    Args:
        rows: float32 ``(N, K)``, K a multiple of 256.

    Returns:
        uint8 ``(N, K / 256 * 210)``.

    Source: ``block_q6_K`` in ggml-org/llama.cpp, ggml/src/ggml-common.h. Scales are those of the
    largest values, without ggml's search for better ones.
    """
    parts = rows.reshape(-1, 16, 16)  # (blocks, parts of 16 values, values)
    part_scale = np.abs(parts).max(axis=2) / 31
    block_scale = (part_scale.max(axis=1, keepdims=True) / 127).astype(np.float16)
    divisor = np.where(block_scale == 0, 1, block_scale).astype(np.float32)
    scales = np.rint(part_scale / divisor).clip(0, 127).astype(np.int8)
    step = divisor * scales
    values = np.rint(parts / np.where(step == 0, 1, step)[:, :, None]).clip(-32, 31)
    codes = (values + 32).astype(np.uint8).reshape(-1, 2, 4, 32)  # (blocks, halves, quarters, 32)
    low, high = codes & 15, codes >> 4
    low = low[:, :, :2] | low[:, :, 2:] << 4
    high = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    blocks = [
        low.reshape(-1, 128),
        high.reshape(-1, 64),
        scales.view(np.uint8),
        block_scale.view(np.uint8),
    ]
    return np.hstack(blocks).reshape(len(rows), -1)
