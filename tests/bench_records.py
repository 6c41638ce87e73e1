"""A benchmark record with made-up figures, for tests of what is done with records."""

from __future__ import annotations

from typing import Any

from bitinfer.bench import Record

MACHINE = {
    "commit": "0123456789ab",
    "date": "2026-11-22T01:02:03+00:00",
    "cpu": "A CPU",
    "cores": 4,
    "memory": 16 << 30,
    "compiler": "GNU 12.2.0 -O3",
    "system": "Linux 6.1",
}


def make_record(speed: float = 20.0, *, spread: float = 0.1, **changes: Any) -> Record:
    """A decode of 128 tokens at ``speed`` tokens/s, the runs within ``spread`` of it."""
    fields: dict[str, Any] = {
        "phase": "decode",
        "tokens": 128,
        "prompt_tokens": 0,
        "generated_tokens": 128,
        "batch": 1,
        "depth": 0,
        "threads": 2,
        "tokens_per_s": speed,
        "tokens_per_s_min": speed * (1 - spread),
        "tokens_per_s_max": speed * (1 + spread),
        "tokens_per_s_runs": [speed * (1 - spread), speed, speed * (1 + spread)],
        "bytes_per_token": 750_000_000,
        "bytes_by_part": {"ternary": 417_000_000, "float": 0, "head": 328_000_000, "kv": 5_000_000},
        "gb_per_s": 0.75 * speed,
        "roofline_gb_per_s": 30.0,
        "joules_per_token": None,
        "energy": "not available: not asked for",
        "isa": "avx2",
        "packing": "t5",
        "kernel": "ternary_gemv_addsub_i8_t5_i32",
        "head": "int8",
        "kv_cache": "f16",
        "ffn": "dense",
        "weights": "mmap",
        "model": "some-2b",
        "shape": {"hidden_size": 2560, "num_hidden_layers": 30},
        "warmup": 1,
        "repeats": 3,
        "machine": MACHINE,
    }
    return Record(**{**fields, **changes})


def make_prefill(speed: float = 100.0, **changes: Any) -> Record:
    """A prefill of 512 tokens."""
    phase = {"phase": "prefill", "tokens": 512, "prompt_tokens": 512, "generated_tokens": 0}
    phase |= {"kernel": "ternary_gemm_i8_t5_i32", "bytes_per_token": 7_000_000, "gb_per_s": 0.7}
    parts = {"ternary": 5_500_000, "float": 0, "head": 1_000_000, "kv": 500_000}
    return make_record(speed, **{**phase, "bytes_by_part": parts, **changes})
