"""The forward step of csrc in plain NumPy: the engine's oracle and the model's documentation.

Shares no code with the fast path and gives the same bits: every fp32 operation is rounded once, in
the order written here. All arrays are float32 unless said; ``T`` is tokens, ``K`` in_features,
``N`` out_features. Slow on purpose; meant for small models. To read it, begin with ``decoder``.
"""

from bitinfer.reference.arrays import Tensor
from bitinfer.reference.block_attention import attention, shorten
from bitinfer.reference.decoder import ReferenceDecoder
from bitinfer.reference.elementary import exp_f32, pow_f64, sin_cos_f32, sum16
from bitinfer.reference.packing import to_f32, unpack
from bitinfer.reference.steps import gated, grouped_matmul, quantize, rope

__all__ = [
    "ReferenceDecoder",
    "Tensor",
    "attention",
    "exp_f32",
    "gated",
    "grouped_matmul",
    "pow_f64",
    "quantize",
    "rope",
    "shorten",
    "sin_cos_f32",
    "sum16",
    "to_f32",
    "unpack",
]
