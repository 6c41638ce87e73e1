"""Bytes of weights and KV cache that the engine must read, counted from the model's shape."""

from __future__ import annotations

from bitinfer.bench.record import PARTS
from bitinfer.engine import Engine


def decode_bytes(engine: Engine, context: int, tokens: int, batch: int = 1) -> dict[str, float]:
    """Bytes of ``tokens`` decode steps of ``batch`` sequences at once, by part.

    The weights are read once a step, the cache once for each sequence, which attends to ``context``
    + 1 positions in the first step.
    """
    read = engine.bytes_per_token()
    positions = batch * tokens * (context + (tokens + 1) / 2)
    steps = {part: float(tokens * read[part]) for part in PARTS if part != "kv"}
    return {**steps, "kv": positions * read["kv_per_position"]}


def prefill_bytes(engine: Engine, depth: int, tokens: int) -> dict[str, float]:
    """Bytes of a prompt after ``depth`` cached tokens, by part.

    Matrices and norms are read once a chunk, the head once, the cache once a chunk.
    """
    if not tokens:
        return dict.fromkeys(PARTS, 0.0)
    read = engine.bytes_per_token()
    chunk = engine.prefill_chunk
    ends = [min(end, tokens) for end in range(chunk, tokens + chunk, chunk)]
    return {
        "ternary": float(len(ends) * read["ternary"]),
        "float": float(len(ends) * read["float"]),
        "head": float(read["head"]),
        "kv": float(sum(depth + end for end in ends) * read["kv_per_position"]),
    }
