"""What is fastest here for one model: the measurement behind ``bitinfer tune``.

First packing, GEMV and place of the weights are tried with the default number of threads, then
numbers of threads with the best of these. In between, a model with squared ReLU decodes with and
without its idle neurons.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from bitinfer import hardware, runtime
from bitinfer.bench.race import Candidate, Trial, race
from bitinfer.convert import open_checkpoint
from bitinfer.cpu_count import performance_cores, physical_cores
from bitinfer.engine import Engine, sparse_ffn_bytes
from bitinfer.families.spec import in_groups, num_parameters
from bitinfer.formats.packed import PACKED_NAME, PackedFile, is_packed_folder
from bitinfer.resident import has_room
from bitinfer.tuning import CHOICES, Tuned, ternary_packing, ternary_packings

_ROUNDS = 7
_STAGES = 3
_GAIN = 1.02  # a candidate must be so many times faster than the default ...
_SURE = 0.8  # ... and win so many of the rounds against it
_AS_FAST = 0.98  # of the best number of threads: no slower, as far as one can tell
_QUIET = 0.95  # of it, for quiet mode
_QUICK_ROUNDS = 2
_EVERY_COUNT = 8  # more threads than that are tried in steps

Form = tuple[str, str]  # packing, place of the weights
Engines = dict[Form, Engine]


@dataclass(frozen=True)
class Tuning:
    """A choice, and how it came about.

    Attributes:
        tuned: The choice.
        default: What would be taken without it.
        kernels: Trials of packing, GEMV and place of the weights.
        ffn: Trials of the dense and the sparse FFN; empty where there is but one.
        threads: Trials of numbers of threads.
        gain: How many times faster the best kernels were than the default ones, the median of the
            rounds; 1 where the default stays.
        wins: Rounds in which they were faster.
        rounds: Rounds in all.
        doubts: Sentences about what was not tried, and what makes the figures unsure.
    """

    tuned: Tuned
    default: Candidate
    kernels: Sequence[Trial]
    ffn: Sequence[Trial]
    threads: Sequence[Trial]
    gain: float
    wins: int
    rounds: int
    doubts: Sequence[str]


def tune(
    folder: Path, *, head: str = "int8", progress: Callable[[int, int], None] | None = None
) -> Tuning:
    """Measure what is fastest here for the model in ``folder``; nothing is kept.

    Args:
        folder: Packed or raw.
        head: As for ``Engine.load``.
        progress: Called with the rounds done and the rounds in all.

    Raises:
        BitinferError: the folder cannot be used as it is.
    """
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, _STAGES * (_ROUNDS + 1))

    forms = _forms(folder)
    packing, weights = forms[0]
    cores = min(runtime.MAX_THREADS, performance_cores())
    default = Candidate(packing, runtime.gemv_family(packing), weights, cores)
    load = hardware.load()
    engines, doubts = _load(folder, forms, head, cores)
    kernels = race(
        _kernel_candidates(engines, default),
        lambda candidate: engines[candidate.packing, candidate.weights],
        _ROUNDS,
        tick,
    )
    if load is not None and load > physical_cores() / 4:
        doubts.append(f"other programs were running (load {load:.1f}): tune when they are not")
    best, gain, wins = fastest(kernels)
    engine = engines[best.packing, best.weights]
    engines.clear()
    neurons: list[Trial] = []
    ffns = {"dense": engine, **_sparse(folder, engine, head, doubts)}
    if len(ffns) > 1:
        ways = [replace(best, ffn=ffn) for ffn in ffns]
        neurons = race(ways, lambda candidate: ffns[candidate.ffn], _ROUNDS, tick)
        best = fastest(neurons)[0]
        engine = ffns[best.ffn]
    else:
        done += _ROUNDS + 1
    trials = _thread_trials(engine, best, physical_cores(), _ROUNDS, tick)
    tuned = _tuned(folder, engine, best, trials)
    return Tuning(tuned, default, kernels, neurons, trials, gain, wins, _ROUNDS, doubts)


def _tuned(folder: Path, engine: Engine, best: Candidate, trials: Sequence[Trial]) -> Tuned:
    """The choice: the best kernels, with the fewest threads that are as fast as any."""
    threads = fewest_threads(trials, _AS_FAST)
    rates = {trial.candidate.threads: trial.tokens_per_s for trial in trials}
    return Tuned(
        model=engine.model_key,
        name=folder.resolve().name,
        parameters=num_parameters(engine.spec),
        isa=runtime.active_isa(),
        cores=physical_cores(),
        packing=best.packing,
        gemv=best.gemv,
        weights=best.weights,
        ffn=best.ffn,
        threads=threads,
        quiet_threads=min(threads, fewest_threads(trials, _QUIET)),
        tokens_per_s=float(round(rates[threads], 3)),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def quiet_threads(engine: Engine) -> int:
    """The fewest threads within 5 % of the peak: as tuned, else measured in a second or two."""
    if engine.tuned is not None:
        return engine.tuned.quiet_threads
    before = engine.num_threads
    now = Candidate(engine.packing, engine.gemv_family, engine.weights, before)
    try:
        trials = _thread_trials(engine, now, before, _QUICK_ROUNDS, lambda: None)
    finally:
        engine.num_threads = before
        engine.prefer_gemv("auto")
    return fewest_threads(trials, _QUIET)


def fastest(trials: Sequence[Trial]) -> tuple[Candidate, float, int]:
    """The candidate to take, how many times faster than the first it is, and in how many rounds.

    Args:
        trials: The default's first; it is kept unless another is faster beyond doubt.
    """
    default = trials[0]
    running = [trial for trial in trials if trial.in_race]
    best = max(running, key=lambda trial: trial.tokens_per_s)
    gain = _ratio(best, default)
    wins = sum(a > b for a, b in zip(best.rates, default.rates, strict=True))
    if gain < _GAIN or wins < _SURE * len(best.rates):
        return default.candidate, 1.0, 0
    return best.candidate, gain, wins


def fewest_threads(trials: Sequence[Trial], share: float) -> int:
    """The fewest threads that reach ``share`` of the best rate, by the median of the rounds."""
    running = [trial for trial in trials if trial.in_race]
    best = max(running, key=lambda trial: trial.tokens_per_s)
    return min(trial.candidate.threads for trial in running if _ratio(trial, best) >= share)


def _ratio(trial: Trial, best: Trial) -> float:
    """How fast a trial was beside another, round by round."""
    return statistics.median(a / b for a, b in zip(trial.rates, best.rates, strict=True))


def thread_counts(cores: int) -> list[int]:
    """The numbers of threads to try for ``cores`` cores, the largest first."""
    counts = {*range(1, min(cores, _EVERY_COUNT) + 1), cores}
    step = _EVERY_COUNT
    while step < cores:
        counts |= {step, step * 3 // 2}
        step *= 2
    return sorted((count for count in counts if count <= cores), reverse=True)


def _thread_trials(
    engine: Engine, candidate: Candidate, cores: int, rounds: int, tick: Callable[[], None]
) -> list[Trial]:
    counts = {*thread_counts(min(cores, runtime.MAX_THREADS)), candidate.threads}
    candidates = [replace(candidate, threads=count) for count in sorted(counts, reverse=True)]
    return race(candidates, lambda _: engine, rounds, tick)


def _forms(folder: Path) -> list[Form]:
    """The forms that the model can have; first the one that is taken where nothing was tuned."""
    if is_packed_folder(folder):
        header = PackedFile(folder / PACKED_NAME).header
        stored, binary, grouped = header.packing, header.packing == "b1", header.in_groups
    else:
        plan = open_checkpoint(folder, "auto", "source").plan
        stored, binary, grouped = None, plan.binary, in_groups(plan.spec)
    packings = ("b1",) if binary else ternary_packings(in_groups=grouped)
    default = "b1" if binary else ternary_packing(None, in_groups=grouped)
    forms = [(default, "mmap" if default == stored else "copy")]
    forms += [(stored, "mmap")] if stored else []
    return list(dict.fromkeys([*forms, *((packing, "copy") for packing in packings)]))


def _load(
    folder: Path, forms: Sequence[Form], head: str, threads: int
) -> tuple[Engines, list[str]]:
    """The model in each form that there is room for; and sentences about those left out."""
    engines: Engines = {}
    left_out = []
    for packing, weights in forms:
        if engines and weights == "copy":
            read = next(iter(engines.values())).bytes_per_token()
            if not has_room(read["ternary"] + read["head"]):
                left_out.append(f"{packing} in memory of its own was not tried: too little is left")
                continue
        engines[packing, weights] = Engine.load(
            folder, packing=packing, weights=weights, head=head, ffn="dense", num_threads=threads
        )
    return engines, left_out


def _sparse(folder: Path, engine: Engine, head: str, doubts: list[str]) -> dict[str, Engine]:
    """The same model with a sparse FFN; nothing where it cannot have one or there is no room."""
    if engine.spec["hidden_act"] != "relu2":
        return {}
    needed = sparse_ffn_bytes(engine.spec, engine.packing)
    if engine.weights == "copy":
        needed += sum(engine.bytes_per_token()[part] for part in ("ternary", "head"))
    if not has_room(needed):
        doubts.append("the sparse FFN was not tried: too little memory is left")
        return {}
    try:
        sparse = Engine.load(
            folder, packing=engine.packing, weights=engine.weights, head=head, ffn="sparse"
        )
    except ValueError:  # with scales in groups, or norms of projections
        return {}
    return {"sparse": sparse}


def _kernel_candidates(engines: Engines, default: Candidate) -> list[Candidate]:
    """Each form with each GEMV that it can take; the default first."""
    candidates = [default]
    for (packing, weights), engine in engines.items():
        for gemv in CHOICES["gemv"]:
            engine.prefer_gemv(gemv)
            if engine.gemv_family == gemv:  # BITINFER_GEMV may force one
                candidates.append(Candidate(packing, gemv, weights, default.threads))
    return list(dict.fromkeys(candidates))
