"""Tiny seeded checkpoints in Hugging Face's forms, written by NumPy and the safetensors package.

Independent of bitinfer: packing here follows formats' definition by loops over the four quarters.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

TINY: dict[str, Any] = {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "vocab_size": 50,
    "max_position_embeddings": 128,
    "hidden_act": "relu2",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
    "quantization_config": {
        "quant_method": "bitnet",
        "linear_class": "autobitlinear",
        "quantization_mode": "offline",
    },
}
LLAMA: dict[str, Any] = {
    **TINY,
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "quantization_config": {"quant_method": "bitnet"},
}
ONEBIT: dict[str, Any] = {  # as 1bitLLM has it: masters, and no quantization_config
    **{name: value for name, value in TINY.items() if name != "quantization_config"},
    "architectures": ["BitnetForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "weight_bits": 1,
    "input_bits": 8,
}
DENSE: dict[str, Any] = {
    name: value for name, value in LLAMA.items() if name != "quantization_config"
}
SUB_NORMS = {  # by architecture: before o_proj, before down_proj
    "BitNetForCausalLM": ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm"),
    "BitnetForCausalLM": ("self_attn.inner_attn_ln", "mlp.ffn_layernorm"),
}
QWEN3: dict[str, Any] = {
    **TINY,
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_act": "silu",
}

GEMMA3: dict[str, Any] = {  # as BitNet-Embedding has it: masters with norms inside, no head
    **{name: value for name, value in ONEBIT.items() if not name.endswith("_bits")},
    "architectures": ["Gemma3TextModel"],
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_local_base_freq": 100.0,
    "query_pre_attn_scalar": 8,
}
del GEMMA3["hidden_act"], GEMMA3["tie_word_embeddings"]
ENCODERS = ("Gemma3TextModel", "Qwen3Model")


def hf_pack(ternary: np.ndarray) -> np.ndarray:
    """int8 (N, K) in {-1, 0, 1} -> uint8 (ceil(N/4), K): byte row r holds r, r+R, r+2R, r+3R."""
    n, k = ternary.shape
    rows = -(-n // 4)
    packed = np.zeros((rows, k), np.uint8)
    for row in range(n):
        quarter, r = divmod(row, rows)
        packed[r] |= (ternary[row] + 1).view(np.uint8) << np.uint8(2 * quarter)
    return packed


def projections(config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    queries = config["num_attention_heads"] * head_dim
    keys = config["num_key_value_heads"] * head_dim
    shapes = {
        "self_attn.q_proj": (queries, hidden),
        "self_attn.k_proj": (keys, hidden),
        "self_attn.v_proj": (keys, hidden),
        "self_attn.o_proj": (hidden, queries),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    layers = range(config["num_hidden_layers"])
    return {f"model.layers.{i}.{name}": shape for i in layers for name, shape in shapes.items()}


def make_tensors(
    config: dict[str, Any], seed: int = 0, form: str = "packed", dtype: Any = np.float32
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(stored tensors, ternary int8 matrices by module name); form: packed, unpacked or master."""
    rng = np.random.default_rng(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    tensors: dict[str, np.ndarray] = {}
    ternary: dict[str, np.ndarray] = {}
    for name, (n, k) in projections(config).items():
        t = rng.integers(-1, 2, (n, k), np.int8)
        if form == "master":
            tensors[f"{name}.weight"] = (rng.standard_normal((n, k), np.float32) * 0.02).astype(
                dtype
            )
        else:
            ternary[name] = t
            tensors[f"{name}.weight"] = hf_pack(t) if form == "packed" else t.astype(dtype)
            tensors[f"{name}.weight_scale"] = np.array([rng.uniform(0.5, 2)], dtype)
    norm = {"input_layernorm": hidden, "post_attention_layernorm": hidden}
    queries = projections(config)["model.layers.0.self_attn.q_proj"][0]
    sub_norms = SUB_NORMS.get(config["architectures"][0], ())
    norm |= dict(zip(sub_norms, (queries, inner), strict=False))
    if config["model_type"] in ("qwen3", "gemma3_text"):
        norm |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), config["head_dim"])
    if config["model_type"] == "gemma3_text":
        norm |= dict.fromkeys(("pre_feedforward_layernorm", "post_feedforward_layernorm"), hidden)
    encoder = config["architectures"][0] in ENCODERS
    for name, (_, k) in projections(config).items() if encoder else ():
        tensors[f"{name}.norm.weight"] = rng.uniform(0.5, 1.5, k).astype(dtype)
    for i in range(config["num_hidden_layers"]):
        for name, size in norm.items():
            tensors[f"model.layers.{i}.{name}.weight"] = rng.uniform(0.5, 1.5, size).astype(dtype)
    tensors["model.norm.weight"] = rng.uniform(0.5, 1.5, hidden).astype(dtype)
    tensors["model.embed_tokens.weight"] = rng.standard_normal((vocab, hidden)).astype(dtype)
    if encoder:
        tensors = {name.removeprefix("model."): t for name, t in tensors.items()}
    elif not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = rng.standard_normal((vocab, hidden)).astype(dtype)
    return tensors, ternary


def write_checkpoint(
    folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray], shards: int = 1
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return folder
    weight_map = {}
    for i in range(shards):
        shard = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[i::shards]}, folder / shard)
        weight_map.update(dict.fromkeys(names[i::shards], shard))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def tiny_checkpoint(folder: Path, config: dict[str, Any] = TINY, **options: Any) -> Path:
    return write_checkpoint(folder, config, make_tensors(config, **options)[0])


def write_raw(path: Path, header: dict[str, Any] | bytes, data: bytes = b"") -> Path:
    """A safetensors file of any header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def read_header(path: Path) -> tuple[dict[str, Any], bytes]:
    """(header, all bytes behind it)."""
    content = path.read_bytes()
    end = 8 + struct.unpack("<Q", content[:8])[0]
    return json.loads(content[8:end]), content[end:]


def damage(path: Path, name: str, change: bytes, at: int = 0) -> None:
    """Write ``change`` at byte ``at`` of tensor ``name`` of a safetensors file."""
    header, data = read_header(path)
    with path.open("r+b") as file:
        file.seek(path.stat().st_size - len(data) + header[name]["data_offsets"][0] + at)
        file.write(change)
