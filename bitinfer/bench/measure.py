"""The one timing loop: how fast a loaded model runs prompts and generates tokens.

Between the repeats the memory roofline is read, with the same threads, over a buffer of as many
bytes as one decoded token needs. What is timed: ``cases.py``.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bitinfer import runtime
from bitinfer.bench.bytes_read import decode_bytes, prefill_bytes
from bitinfer.bench.cases import Case, Runs, fill, run
from bitinfer.bench.record import PARTS, Record
from bitinfer.bench.roofline import Roofline
from bitinfer.energy import EnergyCounter, NoCounter
from bitinfer.engine import Engine
from bitinfer.machine import machine_facts

_SHAPE_KEYS = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings"),
)


def bench(
    engine: Engine,
    *,
    prompts: Sequence[int] = (512,),
    generated: Sequence[int] = (128,),
    pairs: Sequence[tuple[int, int]] = (),
    batches: Sequence[int] = (1,),
    depths: Sequence[int] = (0,),
    threads: Sequence[int] = (),
    repeats: int = 5,
    warmup: int = 1,
    energy: EnergyCounter | None = None,
    checkout: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Record]:
    """Measure a loaded model.

    Args:
        engine: The model; its thread count is another one while this runs.
        prompts: Lengths of prefills; 0 is left out.
        generated: Lengths of decodes; 0 is left out.
        pairs: Prompts, each with the tokens generated after it, timed as one.
        batches: Sequences that are generated at once, each of as many tokens after one prompt.
        depths: Tokens that the cache holds before; each length is measured at each depth.
        threads: Thread counts; none: the engine's own.
        repeats: Counted runs of each.
        warmup: Runs before them that are not counted.
        energy: A counter that is read around each run; None: joules are not measured.
        checkout: A folder of bitinfer's git checkout, to name the commit.
        progress: Called with the runs done and the runs in all.

    Returns:
        A record for each thread count, depth and length, in this order; prefills first.

    Raises:
        ValueError: nothing is left to measure, a count is out of range, or the context is too
            short.
    """
    cases = [Case(n, 0) for n in prompts if n]
    cases += [Case(0, n, batch) for batch in batches for n in generated if n]
    cases += [Case(*pair, batch) for batch in batches for pair in pairs if any(pair)]
    cases = list(dict.fromkeys(cases))
    _check_counts(engine, cases, depths, repeats, warmup)
    counter = energy or NoCounter("not asked for")
    facts = machine_facts(checkout)
    before = engine.num_threads
    cache = engine.new_cache(max(depths) + max(case.positions for case in cases) + 1)
    settings = [(count, depth) for count in threads or (before,) for depth in depths]
    rounds = warmup + repeats
    records: list[Record] = []
    try:
        for index, (count, depth) in enumerate(settings):
            engine.num_threads = count
            fill(engine, cache, depth)
            most = max(1, *(case.generated for case in cases))
            read = sum(decode_bytes(engine, depth + 1, most).values())
            roofline = Roofline(round(read / most), count)
            runs = {case: Runs() for case in cases}
            for done in range(1, rounds + 1):
                roofline.read()
                for case, taken in runs.items():
                    cache.trim(depth)
                    run(engine, cache, case, counter, taken if done > warmup else Runs())
                if progress is not None:
                    progress(index * rounds + done, len(settings) * rounds)
            records += [
                _record(engine, case, depth, taken, roofline.gb_per_s, warmup, counter, facts)
                for case, taken in runs.items()
            ]
    finally:
        engine.num_threads = before
    return records


def _check_counts(
    engine: Engine, cases: list[Case], depths: Sequence[int], repeats: int, warmup: int
) -> None:
    if not cases:
        raise ValueError("tokens: expected a prompt or generated tokens to measure, got 0 of both")
    if min(case.batch for case in cases) < 1:
        raise ValueError("batches: expected sequences from 1, got 0 or less")
    if not depths or repeats < 1 or warmup < 0:
        raise ValueError(
            "depths, repeats, warmup: expected at least one depth, 1 and 0, got"
            f" {len(depths)}, {repeats} and {warmup}"
        )
    longest = engine.context_length - 1
    for case in cases:
        for depth in depths:
            if min(case.prompt, case.generated, depth) < 0 or depth + case.positions > longest:
                raise ValueError(
                    f"{case.phase}: expected 0 to {longest} tokens, depth included (the context"
                    f" less one), got {depth + case.positions}"
                )


def _joules_per_token(runs: Runs, tokens: int) -> float | None:
    """Of all runs together; None if one was not measured."""
    measured = [joules for joules in runs.joules if joules is not None]
    return sum(measured) / (tokens * len(measured)) if len(measured) == len(runs.joules) else None


def _record(
    engine: Engine,
    case: Case,
    depth: int,
    runs: Runs,
    roofline: float,
    warmup: int,
    counter: EnergyCounter,
    facts: dict[str, Any],
) -> Record:
    packing = engine.packing
    rates = [case.tokens / taken for taken in runs.seconds]
    median = statistics.median(rates)
    context = depth + (case.prompt or 1)
    prefill = prefill_bytes(engine, depth, case.prompt)
    decode = decode_bytes(engine, context, case.generated, case.batch)
    parts = {part: round((prefill[part] + decode[part]) / case.tokens) for part in PARTS}
    per_token = sum(parts.values())
    gemm = f"ternary_gemm_i8_{packing}_i32"
    gemv = f"ternary_gemv_{engine.gemv_family}_i8_{packing}_i32"
    return Record(
        phase=case.phase,
        tokens=case.tokens,
        prompt_tokens=case.prompt,
        generated_tokens=case.generated,
        batch=case.batch,
        depth=depth,
        threads=engine.num_threads,
        tokens_per_s=median,
        tokens_per_s_min=min(rates),
        tokens_per_s_max=max(rates),
        tokens_per_s_runs=rates,
        bytes_per_token=per_token,
        bytes_by_part=parts,
        gb_per_s=per_token * median / 1e9,
        roofline_gb_per_s=roofline,
        joules_per_token=_joules_per_token(runs, case.tokens),
        energy=counter.source,
        isa=runtime.active_isa(),
        packing=packing,
        kernel="+".join([gemm] * bool(case.prompt) + [gemv] * bool(case.generated)),
        head=engine.head,
        kv_cache=engine.kv_cache,
        ffn=engine.ffn,
        weights=engine.weights,
        model=engine.folder.name,
        shape={key: engine.spec[key] for key in _SHAPE_KEYS},
        warmup=warmup,
        repeats=len(rates),
        machine=facts,
    )
