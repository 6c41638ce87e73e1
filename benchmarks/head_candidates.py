"""Count the rows of a two-plane head whose low plane is read, and compare its choices with int8's.

    python benchmarks/head_candidates.py --positions 10000 --text FILE --record

First a model (the embedded one) runs over a text, position by position; without --text over what it
writes itself, at temperature 1. Then states meet a made head of 128,256 rows of 2,560 columns:

    row = length · (Q diag(λ^½) z + mean),  z normal, λ_j = (j + 8)^-0.8, Q a random rotation,
    length log-normal (σ 0.25), 8 outlier columns 6 times as large

A state lies at a cosine of 0.15 to 0.5 (drawn evenly) to a row; the rest of it is another vector of
the same law. A record says how many rows were candidates at the median and at the 90th percentile
of the positions, and whether every logit that is among the k largest was int8's.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_model import write_record
from numpy.typing import NDArray

from bitinfer import Model, _core, default_model
from bitinfer.convert import PLANE_HEADS
from bitinfer.engine import Engine
from bitinfer.families.spec import DEFAULTS
from bitinfer.machine import machine_facts

HERE = Path(__file__).resolve().parent
TOP_K = (1, 5, 40, 100)
WINDOW = 256  # positions that share a context
VOCAB_SIZE, HIDDEN_SIZE = 128_256, 2560
COLUMNS = ("head", "source", "k", "positions", "median", "90 %", "most", "bytes", "equal")

F32 = NDArray[np.float32]


class Count:
    """What one head did for one k."""

    def __init__(self, head: str, k: int) -> None:
        self.head, self.k = head, k
        self.candidates: list[int] = []
        self.num_bytes: list[int] = []
        self.equal = True

    def add(self, exact: F32, got: F32, candidates: int, num_bytes: int) -> None:
        """Take in one position: the int8 head's logits, and this head's."""
        kth = np.partition(exact, -self.k)[-self.k]
        kept = got > -np.inf
        self.equal &= bool(kept[exact >= kth].all() and np.array_equal(got[kept], exact[kept]))
        self.candidates.append(candidates)
        self.num_bytes.append(num_bytes)

    def facts(self, rows: int, columns: int, source: str) -> dict[str, Any]:
        """As a record."""
        return {
            "head": self.head,
            "top_k": self.k,
            "source": source,
            "rows": rows,
            "columns": columns,
            "positions": len(self.candidates),
            "equal": self.equal,
            "candidates_median": float(np.median(self.candidates)),
            "candidates_p90": float(np.percentile(self.candidates, 90)),
            "candidates_most": max(self.candidates),
            "bytes_of_int8": float(np.mean(self.num_bytes)) / (rows * (columns + 4)),
        }


def on_text(model: Path, text: Path | None, positions: int) -> list[dict[str, Any]]:
    """Counts of a model's head on the positions of a text."""
    with Model.load(model) as whole:
        if text is None:
            options = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_tokens": WINDOW - 8}
            texts = (whole.generate("Once", seed=i, **options).text for i in range(positions))
        else:
            texts = iter([text.read_text(encoding="utf-8")])
        windows = list(_windows(whole, texts, positions))
    exact = Engine.load(model, head="int8")
    wanted = [exact.logits(ids) for ids in windows]
    counts = []
    for head in PLANE_HEADS:
        engine = Engine.load(model, head=head)
        for k in TOP_K:
            count = Count(head, k)
            for ids, rows in zip(windows, wanted, strict=True):
                cache = engine.new_cache()
                for token, row in zip(ids, rows, strict=True):
                    (got,) = engine.forward([[token]], [cache], top_k=k)
                    read = engine.bytes_per_token()["head"]
                    count.add(row, got, engine.head_candidates(), read)
            counts.append(count)
    source = f"{model.name} on {'text of its own' if text is None else text.name}"
    return [c.facts(exact.vocab_size, exact.spec["hidden_size"], source) for c in counts]


def _windows(model: Model, texts: Iterable[str], positions: int) -> Iterator[list[int]]:
    left = positions
    for text in texts:
        ids = model.tokenizer.encode(text)
        for at in range(0, len(ids), WINDOW):
            if left <= 0:
                return
            yield ids[at : at + WINDOW][:left]
            left -= len(ids[at : at + WINDOW])


def on_synthetic(positions: int) -> list[dict[str, Any]]:
    """Counts of a head made of random rows."""
    codes, scales, states = _synthetic_head(positions)
    wanted = []
    counts = []
    for head in ("int8", *PLANE_HEADS):
        decoder = _head_only(head, codes, scales, states)
        for k in (0,) if head == "int8" else (1, 40):
            count = Count(head, k)
            for i in range(positions):
                cache = decoder.new_cache(1, "f16")
                ids = [np.array([i], np.int32)]
                (got,) = decoder.forward(ids, [cache], "last", top_k=k)
                if head == "int8":
                    wanted.append(got)
                else:
                    read = decoder.bytes_per_token()["head"]
                    count.add(wanted[i], got, decoder.head_candidates(), read)
            counts += [count] if k else []
    return [count.facts(VOCAB_SIZE, HIDDEN_SIZE, "synthetic") for count in counts]


def _synthetic_head(positions: int) -> tuple[NDArray[np.int8], F32, F32]:
    """Codes, scales, and states (positions, hidden)."""
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.standard_normal((HIDDEN_SIZE, HIDDEN_SIZE), np.float32))[0]
    spread = (np.arange(HIDDEN_SIZE, dtype=np.float32) + 8) ** -0.4
    outliers = np.ones(HIDDEN_SIZE, np.float32)
    outliers[rng.choice(HIDDEN_SIZE, 8, replace=False)] = 6
    basis = (spread[:, None] * rotation) * outliers
    mean = 0.5 * rng.standard_normal(HIDDEN_SIZE, np.float32) * np.sqrt(np.mean(spread**2))

    def draw(count: int) -> F32:
        return rng.standard_normal((count, HIDDEN_SIZE), np.float32) @ basis

    parts, targets = [], []
    for _ in range(0, VOCAB_SIZE, VOCAB_SIZE // 16):
        count = VOCAB_SIZE // 16
        length = np.exp(0.25 * rng.standard_normal((count, 1), np.float32))
        rows = np.ascontiguousarray(length * (draw(count) + mean))
        targets.append(rows[: -(-positions // 16)])
        raw = rows.reshape(-1).view(np.uint8)
        parts.append(_core.quantize_rows_i8(raw, "f32", count, HIDDEN_SIZE))
    target = np.concatenate(targets)[:positions]
    cosine = rng.uniform(0.15, 0.5, (positions, 1)).astype(np.float32)
    rest = draw(positions)
    target /= np.linalg.norm(target, axis=1, keepdims=True)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    states = cosine * target + np.sqrt(1 - cosine**2) * rest
    codes, scales = zip(*parts, strict=True)
    return np.concatenate(codes), np.concatenate(scales), states


def _head_only(head: str, codes: NDArray[np.int8], scales: F32, states: F32) -> _core.Decoder:
    """A decoder that does nothing to the states, its embedding, before the head."""
    n, k = codes.shape
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1}
    spec = {
        **DEFAULTS,
        **sizes,
        "vocab_size": n,
        "hidden_size": k,
        "intermediate_size": 1,
        "head_dim": 2,
    }
    spec |= {"rms_norm_eps": 0.0, "hidden_act": "relu2", "tie_word_embeddings": False}
    spec |= {"attention_bias": False, "rope_scaling": None, "head": head}
    embedding = np.zeros((n, k), np.float16)  # pages that hold no state are never touched
    embedding[: len(states)] = states * np.sqrt(k)

    def floats(*shape: int) -> tuple[NDArray[np.uint8], str, tuple[int, ...]]:
        return np.ones(shape, np.float32).view(np.uint8).reshape(-1), "f32", shape

    def raw(array: NDArray[Any], dtype: str) -> tuple[NDArray[np.uint8], str, tuple[int, ...]]:
        return array.view(np.uint8).reshape(-1), dtype, array.shape

    weights = {
        "model.embed_tokens.weight": raw(embedding, "f16"),
        "lm_head.weight": raw(codes, "i8"),
    }
    weights["lm_head.weight_scale"] = raw(scales, "f32")
    weights |= {"model.norm.weight": floats(k), "rope.inv_freq": floats(1)}
    layer = "model.layers.0"
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights[f"{layer}.{name}.weight"] = floats(k)
    shapes = {f"self_attn.{name}_proj": (2, k) for name in "qkv"}
    shapes |= {"self_attn.o_proj": (k, 2), "mlp.gate_proj": (1, k), "mlp.up_proj": (1, k)}
    for name, shape in {**shapes, "mlp.down_proj": (k, 1)}.items():
        packed = _core.pack(np.zeros(shape, np.int8), "i2")
        weights[f"{layer}.{name}.weight"] = (packed, "i2", shape)
        weights[f"{layer}.{name}.weight_scale"] = floats(1)
    return _core.Decoder(spec, weights, 1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("model", nargs="?", type=Path, default=default_model())
    parser.add_argument("--text", type=Path, metavar="FILE")
    parser.add_argument("--positions", type=int, default=200, help="of the text [200]")
    parser.add_argument("--states", type=int, default=200, help="for the made head [200]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--record", action="store_true", help="add a record to records/head")
    options = parser.parse_args()
    runs = on_text(options.model, options.text, options.positions)
    if options.states:
        runs += on_synthetic(options.states)
    print(*COLUMNS, sep="\t")
    for run in runs:
        print(
            *(run["head"], run["source"], run["top_k"], run["positions"]),
            *(run["candidates_median"], run["candidates_p90"], run["candidates_most"]),
            *(f"{run['bytes_of_int8']:.3f}", run["equal"]),
            sep="\t",
        )
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
    if options.record:
        facts = machine_facts(HERE)
        print(write_record([{**run, **facts} for run in runs], "head"))


if __name__ == "__main__":
    main()
