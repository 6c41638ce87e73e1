"""What ``reach.py`` measures: for each group of promises the runs, and what they are to show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from engine_runs import allowed, default_packing, forwards, generation, multiply_peak, products
from gguf_model import EMBEDDING_TYPES, write_gguf
from idle_neurons import idle_engine
from llama import Llama
from random_model import Shape, write_random_model
from reach_lines import Group, Line
from turns import Run

from bitinfer import runtime
from bitinfer.bench.bytes_read import decode_bytes
from bitinfer.bench.cases import Case
from bitinfer.engine import Engine

PREFILL_ROWS = {"amx": 12.0, "avx512vnni": 4.5, "avxvnni": 2.0, "avx2": 1.6}  # row -> target
GEMM_ROWS = {"amx": 0.3, "avx512vnni": 0.6, "avxvnni": 0.6, "avx2": 0.6}
GATE_DENSITY, DOWN_DENSITY = 0.3, 0.2  # of tales-6m


@dataclass(frozen=True)
class Sizes:
    """Lengths in tokens."""

    prompt: int = 512
    generated: int = 32
    steps: int = 16  # alike, of a run
    near: int = 128  # a short context
    deep: int = 4096 - 64  # a long one, with room for what is generated
    drafted: int = 4


class Bed:
    """A model of one shape as bitinfer and llama.cpp run it; files are made when first asked for.

    Args:
        folder: Where the files are, and stay.
        shape: The model's.
        sizes: Lengths of what is measured.
        threads: The most threads.
    """

    def __init__(self, folder: Path, shape: Shape, sizes: Sizes, threads: int) -> None:
        self.sizes, self.threads = sizes, threads
        self._shape, self._folder = shape, folder

    def engine(self, **options: str) -> Engine:
        """The model in huge pages, and with other options of `Engine.load`."""
        return Engine.load(self._model(), **{"packing": "t5", "weights": "copy", **options})

    def idle_engine(self, **options: str) -> Engine:
        """The same with neurons that idle (``idle_neurons.py``)."""
        return idle_engine(self._model(), GATE_DENSITY, DOWN_DENSITY, **options)

    @property
    def up_shape(self) -> tuple[int, int]:
        """Rows and columns of ``up_proj``."""
        return self._shape.config["intermediate_size"], self._shape.config["hidden_size"]

    def peer(self, threads: int) -> dict[str, Callable[[int, int], float]]:
        """llama.cpp's TQ2_0 with each type of embedding: name to tokens/s of a test."""
        return {
            f"llama.cpp TQ2_0, {kind} embedding": partial(self._rate, self._llama(kind), threads)
            for kind in EMBEDDING_TYPES
        }

    def _model(self) -> Path:
        path = self._folder / "model-t5"
        if not path.exists():
            write_random_model(self._shape, path, packing="t5")
        return path

    def _llama(self, embedding: str) -> Llama:
        path = self._folder / f"model-TQ2_0-{embedding}.gguf"
        if not path.exists():
            write_gguf(self._model(), path, "TQ2_0", embedding)
        return Llama(path, self.threads, max(self.sizes.prompt, self.sizes.generated) + 2)

    @staticmethod
    def _rate(llama: Llama, threads: int, prompt: int, generated: int) -> float:
        llama.num_threads = threads
        return llama.rate(prompt, generated)


def decode(bed: Bed) -> Group:
    """Against the roofline and the peer."""
    return _decode(bed, bed.threads, 3.0, 0.9)


def single(bed: Bed) -> Group:
    """The same with one thread."""
    return _decode(bed, 1, 2.0, None)


def _decode(bed: Bed, threads: int, times: float, share: float | None) -> Group:
    case = Case(0, bed.sizes.generated)
    engine, mapped = bed.engine(), bed.engine(weights="mmap")
    peers = bed.peer(threads)
    runs = {
        "t5": generation(engine, threads, case),
        "t5, mapped": generation(mapped, threads, case),
        "roofline": allowed(engine, threads, case),
        **{name: partial(rate, 0, case.generated) for name, rate in peers.items()},
    }
    suffix = f", {threads} thread{'s' * (threads > 1)}"
    lines = [
        Line(f"decode by the roofline{suffix}", "t5", ("roofline",), share),
        Line(f"decode by the peer{suffix}", "t5", tuple(peers), times),
        Line(f"decode of mapped weights by the peer{suffix}", "t5, mapped", tuple(peers)),
    ]
    return Group("tokens/s", runs, lines)


def gemv(bed: Bed) -> Group:
    """Packings against each other in decode steps without the head."""
    runs: dict[str, Run] = {}
    lines = []
    times = bed.sizes.steps
    engines = {packing: bed.engine(packing=packing) for packing in ("t5", "t3", "i2")}
    rows = [("t5", "", 1.15), ("t3", "avx2", 1.1)]
    for packing, isa, target in rows:
        if isa and isa not in runtime.available_isas():
            continue
        for threads in (bed.threads, 1):
            suffix = f", {isa or 'best row'}, {threads} thread{'s' * (threads > 1)}"
            for name in (packing, "i2"):
                runs[f"{name}{suffix}"] = forwards(engines[name], threads, 1, times, "none", isa)
            wanted = target if threads > 1 or not isa else None
            text = f"steps without the head, {packing} by i2{suffix}"
            lines.append(Line(text, f"{packing}{suffix}", (f"i2{suffix}",), wanted))
    return Group("steps/s", runs, lines)


def heads(bed: Bed) -> Group:
    """Greedy decode with the two-plane heads."""
    case = Case(0, bed.sizes.generated)
    runs = {
        name: generation(bed.engine(head=name), bed.threads, case)
        for name in ("int8", "6+2", "5+3")
    }
    lines = [Line("greedy decode, 5+3 head by int8", "5+3", ("int8",), 1.1)]
    lines += [Line("greedy decode, 6+2 head by int8", "6+2", ("int8",))]
    return Group("tokens/s", runs, lines)


def sparse(bed: Bed) -> Group:
    """Decode with idle neurons skipped, at the densities of the real model in `bitinfer.models`."""
    case = Case(0, bed.sizes.generated)
    settings = {
        "dense": ("int8", "dense"),
        "dense, 5+3 head": ("5+3", "dense"),
        "sparse, 5+3 head": ("5+3", "sparse"),
    }
    runs = {
        name: generation(bed.idle_engine(head=head, ffn=ffn), bed.threads, case)
        for name, (head, ffn) in settings.items()
    }
    peers = bed.peer(bed.threads)
    runs |= {name: partial(rate, 0, case.generated) for name, rate in peers.items()}
    *_, best = settings
    lines = [
        Line(f"decode, {best}, by dense", best, ("dense",), 1.4),
        Line(f"decode, {best}, by the peer", best, tuple(peers), 4.2),
        Line(f"decode, {best}, by dense with it", best, ("dense, 5+3 head",)),
    ]
    return Group("tokens/s", runs, lines)


def gemm(bed: Bed) -> Group:
    """The GEMM alone, by a loop of its instructions that stays in registers."""
    runs: dict[str, Run] = {}
    lines = []
    for isa, target in GEMM_ROWS.items():
        if isa in runtime.available_isas():
            packing = default_packing(isa)
            runs[isa] = products(bed.up_shape, packing, bed.sizes.prompt, bed.threads, isa)
            peak = f"{isa}, registers only"
            runs[peak] = partial(multiply_peak, isa, bed.threads)
            text = f"GEMM of {bed.sizes.prompt} tokens ({packing}) by registers only, {isa}"
            lines.append(Line(text, isa, (peak,), target))
    return Group("10^9 products/s", runs, lines)


def prefill(bed: Bed) -> Group:
    """Against the peer, on each row with the packing that is its default."""
    case = Case(bed.sizes.prompt, 0)
    runs: dict[str, Run] = {}
    lines = []
    peer, rate = next(iter(bed.peer(bed.threads).items()))  # a prompt hardly reads the embedding
    for isa, target in PREFILL_ROWS.items():
        if isa in runtime.available_isas():
            packing = default_packing(isa)
            name = f"{isa} ({packing})"
            runs[name] = generation(bed.engine(packing=packing), bed.threads, case, 0, isa)
            lines.append(Line(f"prefill({case.prompt}) by the peer, {isa}", name, (peer,), target))
    return Group("tokens/s", {**runs, peer: partial(rate, case.prompt, 0)}, lines)


def context(bed: Bed) -> Group:
    """Decode after a long context: no slower than the bytes that it reads say."""
    sizes, case = bed.sizes, Case(0, bed.sizes.generated)
    runs: dict[str, Run] = {}
    lines = []
    for dtype in ("f16", "int8"):
        engine = bed.engine(kv_cache=dtype)
        names = {depth: f"{dtype}, {depth} tokens" for depth in (sizes.near, sizes.deep)}
        for depth, name in names.items():
            read = sum(decode_bytes(engine, depth + 1, case.generated).values()) / case.generated
            runs[name] = _scaled(generation(engine, bed.threads, case, depth), read / 1e9)
        text = f"cost of {sizes.deep} tokens of context by that of its bytes, {dtype}"
        lines.append(Line(text, names[sizes.near], (names[sizes.deep],), 1.05, at_most=True))
    return Group("GB/s", runs, lines)


def batches(bed: Bed) -> Group:
    """Several sequences, or several tokens of one, in one step."""
    sizes, engine = bed.sizes, bed.engine()
    runs = {
        f"batch {batch}": generation(engine, bed.threads, Case(0, sizes.generated, batch))
        for batch in (1, 8)
    }
    return Group("tokens/s", runs, [Line("decode, batch 8 by 1", "batch 8", ("batch 1",), 4.0)])


def verify(bed: Bed) -> Group:
    """What a verified draft costs, in steps of one token."""
    engine, drafted = bed.engine(), bed.sizes.drafted
    names = {tokens: f"{tokens} token{'s' * (tokens > 1)}" for tokens in (1, drafted, drafted + 1)}
    runs = {
        name: forwards(engine, bed.threads, tokens, bed.sizes.steps, "all")
        for tokens, name in names.items()
    }
    lines = [
        Line(
            f"cost of a step of {names[tokens]} by one of 1", names[1], (names[tokens],), 1.4, True
        )
        for tokens in (drafted + 1, drafted)
    ]
    return Group("steps/s", runs, lines)


def _scaled(once: Run, factor: float) -> Run:
    return lambda: once() * factor


GROUPS: dict[str, Callable[[Bed], Group]] = {
    function.__name__: function
    for function in (decode, single, gemv, heads, sparse, prefill, gemm, context, batches, verify)
}
