"""Write a packed model with random weights and the exact shape of a real one.

    python benchmarks/random_model.py --shape bitnet-2b-4t OUT --packing t5

Speed depends on shapes and bytes, not on values, so these stand for the real models in benchmarks.
Every tensor is made and written in blocks of some MB: memory stays at a few hundred MB whatever the
shape. The same arguments and seed give the same file. The text such a model writes is noise.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from bitinfer import _core
from bitinfer.config import ModelConfig
from bitinfer.convert import PACKED_FILES
from bitinfer.families.spec import (
    EMBEDDING,
    HEAD,
    HEAD_SCALE,
    float_shapes,
    make_spec,
    ternary_shapes,
)
from bitinfer.formats.new_folder import check_free_space, new_folder
from bitinfer.formats.packed import PACKED_NAME, PackedHeader, PackedWriter

BLOCK_VALUES = 8 << 20  # weights made at a time
ROW_UNIT = 64  # rows of a block are a multiple of this: whole tiles and whole 64-byte runs
ZERO_FRACTION = 0.42  # of bitnet-b1.58-2B-4T


@dataclass(frozen=True)
class Shape:
    """The config of a real model, and which norms its family has."""

    config: dict[str, Any]
    sub_norms: bool
    qk_norm: bool = False


def _shape(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, **rest: Any) -> Shape:
    sub_norms = rest.pop("sub_norms")
    vocab = rest["vocab_size"]
    config = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": hidden // heads,
        "rms_norm_eps": 1e-5,
        "attention_bias": False,
        "bos_token_id": vocab - 2,
        "eos_token_id": vocab - 1,
        **rest,
    }
    return Shape(config, sub_norms)


def _one_bit_llm(*sizes: int) -> Shape:
    """A model of 1bitLLM's, which differ in their sizes only."""
    return _shape(
        *sizes,
        model_type="bitnet",
        architectures=["BitNetForCausalLM"],
        vocab_size=32002,
        hidden_act="silu",
        max_position_embeddings=2048,
        rope_theta=10000.0,
        tie_word_embeddings=True,
        sub_norms=True,
    )


SHAPES = {
    "bitnet-2b-4t": _shape(
        *(2560, 6912, 30, 20, 5),
        model_type="bitnet",
        architectures=["BitNetForCausalLM"],
        vocab_size=128256,
        hidden_act="relu2",
        max_position_embeddings=4096,
        rope_theta=500000.0,
        tie_word_embeddings=True,
        sub_norms=True,
    ),
    "bitnet-700m": _one_bit_llm(1536, 4096, 24, 16, 16),  # 1bitLLM/bitnet_b1_58-large
    "bitnet-3b": _one_bit_llm(3200, 8640, 26, 32, 32),  # 1bitLLM/bitnet_b1_58-3B
    "llama-8b": _shape(  # HF1BitLLM/Llama3-8B-1.58
        *(4096, 14336, 32, 32, 8),
        model_type="llama",
        architectures=["LlamaForCausalLM"],
        vocab_size=128256,
        hidden_act="silu",
        max_position_embeddings=8192,
        rope_theta=500000.0,
        tie_word_embeddings=False,
        sub_norms=False,
    ),
}


class RandomWeights:
    """The canonical tensors of a random model, made block by block, a function of name and seed.

    Args:
        spec: The decoder's spec.
        packing: Layout of the ternary matrices.
        head: ``int8`` or ``source``.
        seed: Another seed, other weights.
    """

    def __init__(self, spec: dict[str, Any], packing: str, head: str, seed: int) -> None:
        self.ternary = ternary_shapes(spec)
        self._packing, self._seed = packing, seed
        vocab, hidden = spec["vocab_size"], spec["hidden_size"]
        self._head_name = EMBEDDING if spec["tie_word_embeddings"] else HEAD
        self._head_shape = (vocab, hidden)
        self.tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, (n, k) in self.ternary.items():
            self.tensors[name] = ("U8", (_core.packed_bytes(packing, n, k),))
            self.tensors[f"{name}_scale"] = ("F32", (1,))
        for name, shape in float_shapes(spec).items():
            self.tensors[name] = ("BF16", shape)
        if head == "int8":
            self.tensors[HEAD] = ("I8", (vocab, -(-hidden // 64) * 64))
            self.tensors[HEAD_SCALE] = ("F32", (vocab,))
        elif self._head_name == HEAD:
            self.tensors[HEAD] = ("BF16", (vocab, hidden))
        self._zero_fraction = 0.0 if packing == "b1" else ZERO_FRACTION
        zeros = round(256 * self._zero_fraction)  # a random byte -> a weight
        self._weight_of_byte = np.repeat(
            np.array([0, 1, -1], np.int8), [zeros, (256 - zeros) // 2, (257 - zeros) // 2]
        )

    def blocks(self, name: str) -> Iterator[NDArray[Any]]:
        """Yield the bytes of a tensor in order."""
        dtype, shape = self.tensors[name]
        if name in self.ternary:
            yield from self._packed(name)
        elif name == HEAD and dtype == "I8":
            for rows in self._bf16_rows(self._head_name, self._head_shape):
                yield self._quantized(rows)[0]
        elif name == HEAD_SCALE:
            for rows in self._bf16_rows(self._head_name, self._head_shape):
                yield self._quantized(rows)[1]
        elif name.endswith(".weight_scale"):
            _, k = self.ternary[name.removesuffix("_scale")]
            # Outputs of unit size for inputs of unit size.
            yield np.array([1.0 / math.sqrt(k * (1.0 - self._zero_fraction))], np.float32)
        elif len(shape) == 2:
            yield from self._bf16_rows(name, shape)
        else:
            yield _bf16(np.ones(shape, np.float32))  # norms

    def _random(self, name: str) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([self._seed, zlib.crc32(name.encode())]))

    def _packed(self, name: str) -> Iterator[NDArray[np.uint8]]:
        """Packed tiles of a random matrix: rows packed in blocks of whole tiles are the whole."""
        n, k = self.ternary[name]
        random = self._random(name)
        step = max(1, BLOCK_VALUES // k // ROW_UNIT) * ROW_UNIT
        for row in range(0, n, step):
            rows = min(step, n - row)
            codes = np.frombuffer(random.bytes(rows * k), np.uint8).reshape(rows, k)
            yield _core.pack(self._weight_of_byte[codes], self._packing)

    def _bf16_rows(self, name: str, shape: tuple[int, ...]) -> Iterator[NDArray[np.uint16]]:
        """Rows of normal numbers as bf16 bits, (rows, columns)."""
        random = self._random(name)
        step = max(1, BLOCK_VALUES // shape[1])
        for row in range(0, shape[0], step):
            size = (min(step, shape[0] - row), shape[1])
            yield _bf16(random.standard_normal(size, np.float32))

    def _quantized(self, rows: NDArray[np.uint16]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        codes, scales = _core.quantize_rows_i8(rows.view(np.uint8).reshape(-1), "bf16", *rows.shape)
        return codes, scales


def _bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Upper halves of float32, truncated; good enough for noise."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def write_random_model(
    shape: Shape, out: Path, *, packing: str, head: str = "int8", seed: int = 0
) -> None:
    """Write a packed folder of the given shape to ``out``, which must be new or a packed folder."""
    config = ModelConfig.from_dict(shape.config)
    spec = make_spec(
        config,
        attn_sub_norm=shape.sub_norms,
        ffn_sub_norm=shape.sub_norms,
        qk_norm=shape.qk_norm,
    )
    weights = RandomWeights(spec, packing, head, seed)
    source = {"name": "random", "revision": None, "sha256": {}}
    header = PackedHeader(packing, head, spec, weights.ternary, source)
    with new_folder(out, PACKED_FILES, PACKED_NAME) as folder:
        writer = PackedWriter(folder / PACKED_NAME, header, weights.tensors)
        check_free_space(out, writer.total_bytes)
        with writer:
            for name in writer.order:
                for block in weights.blocks(name):
                    writer.write(name, block)
        write_side_files(folder, shape.config)


def write_side_files(folder: Path, config: dict[str, Any]) -> None:
    """config.json, generation_config.json and a tokenizer of as many tokens as the embedding."""
    bos, eos = "<s>", "</s>"
    _byte_tokenizer(config["vocab_size"], bos, eos).save(str(folder / "tokenizer.json"))
    template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    files = {
        "config.json": config,
        "generation_config.json": {
            "bos_token_id": config["bos_token_id"],
            "eos_token_id": config["eos_token_id"],
        },
        "tokenizer_config.json": {
            "bos_token": bos,
            "eos_token": eos,
            "add_bos_token": True,
            "chat_template": template,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _byte_tokenizer(vocab_size: int, bos: str, eos: str) -> Tokenizer:
    """One token a byte, words that no text leads to, and ``bos``, ``eos`` as the last two."""
    tokens = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens += [f"\u0120w{i}" for i in range(vocab_size - len(tokens) - 2)]  # U+0120: a space
    tokens += [bos, eos]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in (bos, eos)])
    return tokenizer


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write")
    parser.add_argument("--shape", required=True, choices=SHAPES)
    parser.add_argument("--packing", default="t5", choices=list(_core.layouts()))
    parser.add_argument("--head", default="int8", choices=["int8", "source"])
    parser.add_argument("--layers", type=int, help="fewer layers than the real model has")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    if args.layers:
        shape = Shape({**shape.config, "num_hidden_layers": args.layers}, shape.sub_norms)
    start = time.perf_counter()
    write_random_model(shape, args.out, packing=args.packing, head=args.head, seed=args.seed)
    size = (args.out / PACKED_NAME).stat().st_size
    print(f"{args.out}: {size / 1e6:,.0f} MB in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
