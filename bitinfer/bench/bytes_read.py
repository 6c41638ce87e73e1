"""Bytes of weights and KV cache that the engine must read, counted from the model's shape."""

from __future__ import annotations

from bitinfer.engine import Engine


def decode_bytes(engine: Engine, context: int, tokens: int) -> float:
    """Bytes of ``tokens`` decode steps, the first of which attends to ``context`` + 1 positions."""
    read = engine.bytes_per_token()
    mean_context = context + (tokens + 1) / 2
    step = read["ternary"] + read["head"] + read["float"]
    return tokens * (step + read["kv_per_position"] * mean_context)


def prefill_bytes(engine: Engine, depth: int, tokens: int) -> float:
    """Bytes of a prompt after ``depth`` cached tokens.

    Matrices and norms are read once a chunk, the head once, the cache once a chunk.
    """
    if not tokens:
        return 0.0
    read = engine.bytes_per_token()
    chunk = engine.prefill_chunk
    ends = [min(end, tokens) for end in range(chunk, tokens + chunk, chunk)]
    weights = len(ends) * (read["ternary"] + read["float"]) + read["head"]
    return weights + sum(depth + end for end in ends) * read["kv_per_position"]
