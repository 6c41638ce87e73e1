"""Whole models as GGUF files, from the tensors of checkpoints.py or of the embedded model."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf_files import (
    ARRAY,
    BLOCKS,
    ROWS,
    STRING,
    TYPE_NUMBERS,
    encode_blocks,
    encode_rows,
    gguf_bytes,
    i2_s,
    key,
    put,
    tl1,
    tl2,
)
from tokenizer_cases import as_metadata

import bitinfer
from bitinfer import _core
from bitinfer.formats.packed import PACKED_NAME, PackedFile

U32, F32, BOOL, I32 = 4, 6, 7, 5
LAYERS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "self_attn.attn_sub_norm": "attn_sub_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.ffn_sub_norm": "ffn_sub_norm",
}
OUTSIDE = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
# Wide enough for blocks of 256.
WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}

# The tiles that are published with 1bitLLM's bitnet_b1_58-large: BM, BK, and bm of TL1.
LARGE_TILES = {
    "TL1": {
        (1536, 4096): (256, 128, 32),
        (1536, 1536): (128, 64, 64),
        (4096, 1536): (256, 128, 32),
    },
    "TL2": {(1536, 4096): (256, 96), (1536, 1536): (128, 192), (4096, 1536): (256, 96)},
}

Tensors = dict[str, tuple[int, tuple[int, ...], bytes]]


def gguf_name(name: str) -> str:
    """The GGUF name of a Hugging Face tensor."""
    module, _, end = name.rpartition(".")
    inside = module.endswith("_proj.norm")
    module = module.removesuffix(".norm") if inside else module
    end = f"_norm_in.{end}" if inside else f".{end}"
    layer = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", module)
    return f"{f'blk.{layer[1]}.{LAYERS[layer[2]]}' if layer else OUTSIDE[module]}{end}"


def ternary_bytes(trits: np.ndarray, scale: Any, kind: str) -> bytes:
    """A matrix in a type of GGUF; kind: a type, or I2_S with its layout ("I2_S 64-block")."""
    kind, _, layout = kind.partition(" ")
    if kind == "I2_S":
        return i2_s(trits, scale, layout or "128-block")
    if kind in ROWS:
        return encode_rows(kind, trits, scale)
    if kind in LARGE_TILES:
        encode: Any = {"TL1": tl1, "TL2": tl2}[kind]
        return bytes(encode(trits, scale, *LARGE_TILES[kind][trits.shape]))
    if kind == "TQ2_0":
        return tq2_0(trits, scale)
    return encode_blocks(kind if kind in BLOCKS else f"{kind}_128", trits, scale)


def tq2_0(trits: np.ndarray, scale: Any) -> bytes:
    """A whole matrix at once."""
    flat = np.arange(trits.size)
    block, i = divmod(flat, 256)
    codes = put(
        trits.size // 4,
        64 * block + i // 128 * 32 + i % 32,
        trits.ravel() + 1 << 2 * (i % 128 // 32),
    )
    scales = np.full((trits.size // 256, 1), scale, "<f2").view(np.uint8)
    return np.hstack([codes.reshape(-1, 64), scales]).tobytes()


def ternary(trits: np.ndarray, scale: Any, kind: str) -> tuple[int, tuple[int, ...], bytes]:
    """A matrix; in F16 where its rows are no whole blocks of TQ1_0 or TQ2_0, as llama.cpp does."""
    if kind.startswith("TQ") and trits.shape[1] % 256:
        return floats(trits * np.float32(scale), "F16")
    number = TYPE_NUMBERS[kind.partition(" ")[0]]
    return number, trits.shape, ternary_bytes(trits, scale, kind)


def floats(values: np.ndarray, kind: str = "F32") -> tuple[int, tuple[int, ...], bytes]:
    dtype = {"F32": "<f4", "F16": "<f2"}[kind]
    return TYPE_NUMBERS[kind], values.shape, np.ascontiguousarray(values, dtype).tobytes()


def permuted(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows as llama.cpp's converter orders them for architecture llama: pairs side by side."""
    out = np.empty_like(rows)
    d = len(rows) // heads
    for head in range(heads):
        for i in range(d // 2):
            for j in range(2):
                out[head * d + 2 * i + j] = rows[head * d + j * d // 2 + i]
    return out


def model_tensors(
    stored: Mapping[str, np.ndarray],
    trits: Mapping[str, np.ndarray],
    kind: str,
    *,
    embedding: str = "F32",
    heads: tuple[int, int] | None = None,
) -> Tensors:
    """The tensors of a model.

    Args:
        stored: As `checkpoints.make_tensors` has them.
        trits: Its ternary matrices by module name.
        kind: Type of the ternary matrices.
        embedding: Type of embedding and head.
        heads: Of queries and keys, where their rows are permuted.
    """
    tensors: Tensors = {}
    for name, values in stored.items():
        module = name.removesuffix(".weight")
        if module in trits:
            matrix = trits[module]
            if heads and module.endswith(("q_proj", "k_proj")):
                matrix = permuted(matrix, heads[module.endswith("k_proj")])
            scale = np.float32(stored[f"{name}_scale"].ravel()[0])
            tensors[gguf_name(name)] = ternary(matrix, scale, kind)
        elif not name.endswith("_scale"):
            wide = name.startswith(("model.embed", "lm_head"))
            tensors[gguf_name(name)] = floats(values, embedding if wide else "F32")
    return tensors


def config_keys(arch: str, config: Mapping[str, Any], **others: tuple[int, Any]) -> list[bytes]:
    """The metadata of a model but its tokenizer; others: name -> (type of value, value)."""
    fields = {
        "vocab_size": (U32, config["vocab_size"]),
        "context_length": (U32, config["max_position_embeddings"]),
        "embedding_length": (U32, config["hidden_size"]),
        "block_count": (U32, config["num_hidden_layers"]),
        "feed_forward_length": (U32, config["intermediate_size"]),
        "rope.dimension_count": (U32, config["head_dim"]),
        "attention.head_count": (U32, config["num_attention_heads"]),
        "attention.head_count_kv": (U32, config["num_key_value_heads"]),
        "attention.layer_norm_rms_epsilon": (F32, config["rms_norm_eps"]),
        "rope.freq_base": (F32, config["rope_theta"]),
        "attention.key_length": (U32, config["head_dim"]),
        "attention.value_length": (U32, config["head_dim"]),
        **others,
    }
    keys = [key("general.architecture", STRING, arch)]
    return keys + [key(f"{arch}.{name}", *field) for name, field in fields.items() if field]


def tokenizer_keys(fields: Mapping[str, Any]) -> list[bytes]:
    """Metadata of a tokenizer as keys of a file."""
    keys = []
    for name, value in fields.items():
        if isinstance(value, list):
            kind = STRING if isinstance(value[0], str) else I32
            keys.append(key(name, ARRAY, (kind, value)))
        else:
            kinds = {str: STRING, bool: BOOL, int: U32}
            keys.append(key(name, kinds[type(value)], value))
    return keys


def embedded_tokenizer(**fields: Any) -> dict[str, Any]:
    """The metadata of the embedded model's tokenizer."""
    folder = bitinfer.default_model()
    known = {"pre": "smollm", "bos_token_id": 1, "eos_token_id": 2, "add_bos_token": True}
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    template = {"tokenizer.chat_template": settings["chat_template"]}
    return as_metadata(folder / "tokenizer.json", **{**known, **fields}) | template


def embedded_tensors(kind: str) -> Tensors:
    """The embedded model."""
    file = PackedFile(bitinfer.default_model() / PACKED_NAME)
    tensors: Tensors = {}
    for name in file:
        data, dtype, shape = file.tensor(name)
        if name in file.header.ternary:
            scale = struct.unpack("<f", file.tensor(f"{name}_scale")[0].tobytes())[0]
            trits = _core.unpack(data, file.header.packing, *shape)
            tensors[gguf_name(name)] = ternary(trits, scale, kind)
        elif not name.endswith("_scale") and dtype != "i8":
            bits = data.view(np.uint16).astype(np.uint32) << 16 if dtype == "bf16" else None
            values = data.view(np.float32) if bits is None else bits.view(np.float32)
            tensors[gguf_name(name)] = floats(values.reshape(shape))
    return tensors


def embedded_model(path: Path, kind: str, arch: str = "bitnet-b1.58") -> Path:
    """Write the embedded model as a GGUF file."""
    spec = PackedFile(bitinfer.default_model() / PACKED_NAME).header.spec
    keys = config_keys(arch, spec) + tokenizer_keys(embedded_tokenizer())
    path.write_bytes(gguf_bytes(embedded_tensors(kind), keys))
    return path


def same_tensors(one_folder: Path, other_folder: Path) -> None:
    """Two packed folders hold the same model."""
    one, other = (PackedFile(folder / PACKED_NAME) for folder in (one_folder, other_folder))
    assert one.header.spec == other.header.spec
    assert list(one) == list(other)
    for name in one:
        (data, *kind), (expected, *expected_kind) = one.tensor(name), other.tensor(name)
        assert kind == expected_kind, name
        assert (data == expected).all(), name
