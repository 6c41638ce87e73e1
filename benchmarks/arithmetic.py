"""Additions and multiplications of one token, and the energy that they take by published figures.

Nothing here is measured: operations are counted from a model's shape, and picojoules are those of

- 45 nm: M. Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014;
- 7 nm: N. Jouppi et al., "Ten lessons from three generations shaped Google's TPUv4i", ISCA 2021;
  those of them that the BitNet papers use are the same (arXiv 2310.11453, 2402.17764).

They are of the arithmetic alone. Moving data, which decides on a CPU, is not among them.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from on_paper import weights

PICOJOULES = {
    "45 nm": {
        "int8 add": 0.03,
        "int32 add": 0.1,
        "int8 mul": 0.2,
        "fp16 add": 0.4,
        "fp16 mul": 1.1,
        "fp32 add": 0.9,
        "fp32 mul": 3.7,
    },
    "7 nm": {
        "int8 add": 0.007,
        "int32 add": 0.03,
        "int8 mul": 0.07,
        "fp16 add": 0.16,
        "fp16 mul": 0.34,
        "fp32 add": 0.38,
        "fp32 mul": 1.31,
    },
}
_HEAD_PLANES = 2  # of the final hidden state, each times int8 weights


def ternary_matrices(spec: dict[str, Any], sums: str = "int8 add") -> Counter[str]:
    """An addition for each weight; the papers count it as one of 8 bits."""
    return Counter({sums: weights(spec)})


def float_matrices(spec: dict[str, Any]) -> Counter[str]:
    """The same matrices in FP16."""
    return Counter({"fp16 mul": weights(spec), "fp16 add": weights(spec)})


def ternary_token(spec: dict[str, Any], context: int) -> Counter[str]:
    """All products of a token as bitinfer forms them: matrices, int8 head, attention in FP32."""
    head = _HEAD_PLANES * _head_values(spec)
    attention = _attention_values(spec, context)
    return (
        ternary_matrices(spec, "int32 add")
        + Counter({"int8 mul": head, "int32 add": head})
        + Counter({"fp32 mul": attention, "fp32 add": attention})
    )


def float_token(spec: dict[str, Any], context: int) -> Counter[str]:
    """The same products, all in FP16."""
    values = weights(spec) + _head_values(spec) + _attention_values(spec, context)
    return Counter({"fp16 mul": values, "fp16 add": values})


def millijoules(operations: Counter[str], process: str) -> float:
    """Energy of the operations by a process's figures."""
    table = PICOJOULES[process]
    return sum(count * table[name] for name, count in operations.items()) / 1e9


def _head_values(spec: dict[str, Any]) -> int:
    return int(spec["vocab_size"] * spec["hidden_size"])


def _attention_values(spec: dict[str, Any], context: int) -> int:
    """Queries by keys and weights by values, of all heads and layers."""
    width = spec["num_attention_heads"] * spec["head_dim"]
    return int(2 * (context + 1) * width * spec["num_hidden_layers"])
