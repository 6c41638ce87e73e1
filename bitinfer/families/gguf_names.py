"""What a GGUF file calls the tensors of a model, in the names and row order of Hugging Face.

Source: ggml-org/llama.cpp, gguf-py/gguf/tensor_mapping.py, conversion/base.py (permute).
"""

from __future__ import annotations

import re
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitinfer.config import ModelConfig
from bitinfer.families.spec import EMBEDDING, HEAD

GGUF_EMBEDDING = "token_embd.weight"
GGUF_HEAD = "output.weight"
GGUF_BIAS = "blk.0.attn_q.bias"  # there if attention has biases
_OUTSIDE = {
    GGUF_EMBEDDING: EMBEDDING,
    "output_norm.weight": "model.norm.weight",
    GGUF_HEAD: HEAD,
}
_IN_LAYER = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_sub_norm": "self_attn.attn_sub_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "ffn_sub_norm": "mlp.ffn_sub_norm",
}
_NORM_INSIDE = "_norm_in"  # behind the name of a projection: the norm on its input
_LAYER = re.compile(r"blk\.(0|[1-9]\d{0,4})\.(\w+)\.(weight|bias)")
_OUTSIDE_HERE = {name: stored for stored, name in _OUTSIDE.items()}
_IN_LAYER_HERE = {name: stored for stored, name in _IN_LAYER.items()}
Array = TypeVar("Array", bound=np.generic)


def hugging_face_name(name: str) -> str | None:
    """The Hugging Face name of a GGUF tensor; None where there is none."""
    layer = _LAYER.fullmatch(name)
    if layer is None:
        return _OUTSIDE.get(name)
    part = _IN_LAYER.get(layer[2].removesuffix(_NORM_INSIDE))
    if part is None:
        return None
    inside = ".norm" if layer[2].endswith(_NORM_INSIDE) else ""
    return f"model.layers.{layer[1]}.{part}{inside}.{layer[3]}"


def is_projection(name: str) -> bool:
    """Whether a GGUF tensor is a projection of a layer."""
    return (hugging_face_name(name) or "").endswith("_proj.weight")


def own_scale(name: str) -> str:
    """The tensor that holds the scale of a matrix where ik_llama.cpp's converter wrote it."""
    return name.removesuffix("weight") + "scale"


def permuted_heads(name: str, architecture: object, config: ModelConfig) -> int | None:
    """Heads by which the rows of a tensor are permuted; None: they are not.

    Args:
        name: Its Hugging Face name.
        architecture: Value of general.architecture.
        config: Of the model.
    """
    if architecture != "llama":
        return None
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    return heads.get(name.rpartition(".self_attn.")[2].rpartition(".")[0])


def gguf_name(name: str) -> str:
    """The GGUF name of a tensor that has one; the reverse of ``hugging_face_name``.

    Args:
        name: Its Hugging Face name.
    """
    if name in _OUTSIDE_HERE:
        return _OUTSIDE_HERE[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    inside = _NORM_INSIDE if module.endswith("_proj.norm") else ""
    return f"blk.{layer}.{_IN_LAYER_HERE[module.removesuffix('.norm')]}{inside}.{kind}"


def permuted(rows: NDArray[Array], num_heads: int) -> NDArray[Array]:
    """Rows of q or k as architecture ``llama`` has them, a fresh array; undoes ``unpermuted``."""
    heads = rows.reshape(num_heads, 2, -1, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)


def unpermuted(rows: NDArray[Array], num_heads: int) -> NDArray[Array]:
    """Rows of q or k of architecture ``llama`` in the order of Hugging Face, a fresh array.

    Within a head of d rows, row 2·i + j of the file (j of 0, 1) is row j·d/2 + i.
    """
    heads = rows.reshape(num_heads, -1, 2, *rows.shape[1:])
    return heads.swapaxes(1, 2).reshape(rows.shape)
