"""What can be computed of a model without running it: bytes per token, and the speed they allow.

Nothing here is measured. The tests compare the bytes with those that the engine counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from random_model import SHAPES, Shape

from bitinfer import _core
from bitinfer.config import ModelConfig
from bitinfer.families.spec import float_shapes, make_spec, ternary_shapes

SHARE = 0.8  # of the peak bandwidth that a well streamed read gets


@dataclass(frozen=True)
class MemorySystem:
    """Memory as its data sheet has it.

    Attributes:
        name: With an example of a machine.
        mega_transfers: Per second, 10^6.
        bits: Width of all channels.
    """

    name: str
    mega_transfers: int
    bits: int

    @property
    def gb_per_s(self) -> float:
        """Peak bandwidth, 10^9 bytes a second."""
        return self.mega_transfers * self.bits / 8 / 1e3


SYSTEMS = (
    MemorySystem("DDR4-3200, 2 channels", 3200, 128),
    MemorySystem("DDR5-5600, 2 channels", 5600, 128),
    MemorySystem("LPDDR5X-8533, 128 bit", 8533, 128),
    MemorySystem("Apple M4 (LPDDR5X-7500, 128 bit)", 7500, 128),
    MemorySystem("Apple M4 Max (LPDDR5X-8533, 512 bit)", 8533, 512),
    MemorySystem("DDR5-4800, 12 channels (EPYC 9004)", 4800, 768),
    MemorySystem("DDR5-6400, 12 channels (EPYC 9005)", 6400, 768),
)


def _larger(hidden: int, inner: int, layers: int, heads: int, kv_heads: int) -> Shape:
    """A decoder of the Llama form."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads")
    sizes = dict(zip(names, (hidden, inner, layers, heads, kv_heads), strict=True))
    llama = SHAPES["llama-8b"]
    return Shape({**llama.config, **sizes, "head_dim": hidden // heads}, llama.sub_norms)


PAPER_SHAPES = {
    "0.7B": SHAPES["bitnet-700m"],
    "2B": SHAPES["bitnet-2b-4t"],
    "3B": SHAPES["bitnet-3b"],
    "8B": SHAPES["llama-8b"],
    "70B": _larger(8192, 28672, 80, 64, 8),  # Llama 3 70B
    "100B": _larger(8192, 45568, 72, 64, 64),  # microsoft/BitNet, generate-dummy-bitnet-model.py
}


def spec_of(shape: Shape) -> dict[str, Any]:
    """The decoder's spec."""
    config = ModelConfig.from_dict(shape.config)
    return make_spec(config, attn_sub_norm=shape.sub_norms, ffn_sub_norm=shape.sub_norms)


def bytes_per_token(spec: dict[str, Any], packing: str) -> dict[str, int]:
    """What a decode step reads with an int8 head and an f16 cache, as `Engine.bytes_per_token`."""
    ternary, floats = ternary_shapes(spec), float_shapes(spec)
    hidden, vocab, head_dim = spec["hidden_size"], spec["vocab_size"], spec["head_dim"]
    norms = sum(shape[0] for shape in floats.values() if len(shape) == 1)
    rotations = head_dim // 2
    cached = head_dim + -(-head_dim // 16) * 16  # a key, and a value of whole vectors
    return {
        "ternary": sum(_core.packed_bytes(packing, n, k) for n, k in ternary.values()),
        "head": vocab * (-(-hidden // 64) * 64 + 4),
        "float": 4 * (norms + len(ternary) + rotations) + 2 * hidden,
        "kv_per_position": 2 * cached * spec["num_key_value_heads"] * spec["num_hidden_layers"],
    }


def decode_bytes(spec: dict[str, Any], packing: str, context: int) -> int:
    """Bytes of one token after ``context`` others."""
    read = bytes_per_token(spec, packing)
    return sum(read.values()) + context * read["kv_per_position"]


def tokens_per_s(num_bytes: int, system: MemorySystem) -> float:
    """What the memory allows, computed."""
    return SHARE * system.gb_per_s * 1e9 / num_bytes


def weights(spec: dict[str, Any]) -> int:
    """Ternary weights."""
    return sum(prod(shape) for shape in ternary_shapes(spec).values())
