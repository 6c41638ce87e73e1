"""Stub of the native module; sections follow csrc/bindings/*.cpp."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__version__: str
compiler: str  # name, version and flags

# ---- isa.cpp ----

def available_isas() -> list[str]: ...
def isa_report() -> list[dict[str, Any]]:
    """Every row of this architecture, best first: name (str), usable (bool), reason (str)."""

def active_isa() -> str: ...
def set_isa(name: str) -> None: ...
def gemv_family(packing: str) -> str: ...
def set_gemv(family: str) -> None: ...
def auto_packing() -> str: ...
def self_test(isa: str) -> str: ...
def dispatch_notes() -> list[str]: ...

# ---- pack.cpp: num_threads 0 means as many as the process may run on; group: columns that share a
# weight scale in each row, None: all ----

def layouts() -> dict[str, dict[str, Any]]:
    """Packing name -> tile_rows, block_k, block_bytes (int), bits_per_weight (float)."""

def packed_bytes(packing: str, n: int, k: int, group: int | None = None) -> int: ...
def pack(
    weights: NDArray[np.int8], packing: str, num_threads: int = 0, group: int | None = None
) -> NDArray[np.uint8]: ...
def unpack(
    packed: NDArray[np.uint8],
    packing: str,
    n: int,
    k: int,
    num_threads: int = 0,
    group: int | None = None,
) -> NDArray[np.int8]: ...
def validate(
    packed: NDArray[np.uint8],
    packing: str,
    n: int,
    k: int,
    num_threads: int = 0,
    group: int | None = None,
) -> None: ...
def repack(
    packed: NDArray[np.uint8],
    src: str,
    dst: str,
    n: int,
    k: int,
    num_threads: int = 0,
    group: int | None = None,
) -> NDArray[np.uint8]: ...
def huge_bytes(num_bytes: int) -> NDArray[np.uint8]: ...
def copy_bytes(
    source: NDArray[np.uint8], target: NDArray[np.uint8], num_threads: int = 0
) -> None: ...
def pack_hf(
    hf: NDArray[np.uint8], n: int, packing: str, num_threads: int = 0
) -> NDArray[np.uint8]: ...
def pack_absmean(
    buffer: NDArray[np.uint8], dtype: str, n: int, k: int, packing: str, num_threads: int = 0
) -> tuple[NDArray[np.uint8], float]: ...
def quantize_rows_i8(
    buffer: NDArray[np.uint8], dtype: str, n: int, k: int, num_threads: int = 0
) -> tuple[NDArray[np.int8], NDArray[np.float32]]: ...
def ternary_gemv(
    packed: NDArray[np.uint8],
    packing: str,
    n: int,
    k: int,
    codes: NDArray[np.int8],
    family: str,
    isa: str | None = None,
    num_streams: int = 8,
    num_threads: int = 1,
) -> NDArray[np.int32]: ...
def ternary_gemm(
    packed: NDArray[np.uint8],
    packing: str,
    n: int,
    k: int,
    codes: NDArray[np.int8],
    isa: str | None = None,
    num_threads: int = 1,
    out: NDArray[np.int32] | None = None,
) -> NDArray[np.int32]: ...
def gemm_i8(
    w: NDArray[np.int8], a: NDArray[np.int8], isa: str | None = None
) -> NDArray[np.int32]: ...

# ---- scaled.cpp ----

def group_magnitudes(
    buffer: NDArray[np.uint8], dtype: str, n: int, k: int, group: int, num_threads: int = 0
) -> tuple[NDArray[np.uint8], int]: ...
def signs(
    buffer: NDArray[np.uint8], dtype: str, n: int, k: int, num_threads: int = 0
) -> NDArray[np.int8]: ...

# ---- head.cpp: split is "6+2" or "5+3" ----

def split_head(
    codes: NDArray[np.int8], split: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int32]]: ...
def head_high(
    high: NDArray[np.uint8],
    split: str,
    n: int,
    k: int,
    a: NDArray[np.int8],
    isa: str | None = None,
) -> NDArray[np.int32]: ...
def head_join(
    high: NDArray[np.uint8],
    low: NDArray[np.uint8],
    split: str,
    n: int,
    k: int,
    isa: str | None = None,
) -> NDArray[np.int8]: ...

# ---- model.cpp, ops.cpp ----

KV_BLOCK: int

class KvBlock:
    """Keeps a block of a pool as it is."""

    @property
    def shared(self) -> bool: ...
    def bytes(self) -> NDArray[np.uint8]: ...

class KvPool:
    """Memory of a fixed size for caches that share beginnings."""

    @property
    def num_blocks(self) -> int: ...
    @property
    def used_blocks(self) -> int: ...
    @property
    def block_bytes(self) -> int: ...
    def new_block(self, data: NDArray[np.uint8]) -> KvBlock: ...
    def new_cache(
        self, capacity: int, blocks: Sequence[KvBlock] = ..., length: int = 0
    ) -> KvCache: ...

class KvCache:
    """Keys and values of the positions that have been run."""

    @property
    def length(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def dtype(self) -> str: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...
    def trim(self, length: int) -> None: ...
    def copy(self) -> KvCache: ...
    def block(self, index: int) -> KvBlock: ...
    def append_block(self, data: NDArray[np.uint8], length: int) -> None: ...
    def new_blocks(self, count: int) -> int: ...

class Decoder:
    """The forward step of one model."""

    def __init__(
        self,
        spec: Mapping[str, Any],
        weights: Mapping[str, tuple[NDArray[np.uint8], str, tuple[int, ...]]],
        num_threads: int,
    ) -> None: ...
    def forward(
        self,
        token_ids: Sequence[NDArray[np.int32]],
        caches: Sequence[KvCache],
        logits: str | Sequence[str],
        out: NDArray[np.float32] | None = None,
        top_k: int = 0,
        vocab_size: int = 0,
    ) -> NDArray[np.float32]: ...
    def hidden(
        self,
        token_ids: Sequence[NDArray[np.int32]],
        caches: Sequence[KvCache],
        rows: str | Sequence[str] = "all",
    ) -> NDArray[np.float32]: ...
    def decode(
        self,
        token_id: int,
        cache: KvCache,
        out: NDArray[np.float32],
        top_k: int = 0,
        vocab_size: int = 0,
    ) -> None: ...
    def new_cache(self, capacity: int, dtype: str) -> KvCache: ...
    def new_pool(self, num_blocks: int, dtype: str) -> KvPool: ...
    num_threads: int
    prefill_chunk: int
    @property
    def gemv_family(self) -> str: ...
    def prefer_gemv(self, family: str) -> None: ...
    def head_candidates(self) -> int: ...
    sparse_ffn: bool
    def ffn_density(self) -> list[tuple[float, float]]: ...
    def bytes_per_token(self, kv_dtype: str = "f16") -> dict[str, int]: ...

def exp_f32(x: NDArray[np.float32]) -> NDArray[np.float32]: ...
def pow_f64(base: float, exponents: NDArray[np.float64]) -> NDArray[np.float64]: ...
def sin_cos_f32(
    angles: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]: ...
def grouped_linear(
    packed: NDArray[np.uint8],
    packing: str,
    n: int,
    k: int,
    group: int | None,
    scales: NDArray[np.uint8],
    dtype: str,
    x: NDArray[np.float32],
    activation_levels: int,
    num_threads: int = 1,
) -> NDArray[np.float32]: ...
def multiply_peak(isa: str, threads: int) -> float: ...
def read_bandwidth(
    buffer: NDArray[np.uint8], threads: int, streams: int, repeats: int
) -> list[float]: ...

# ---- sampling.cpp ----

def argmax(logits: NDArray[np.float32]) -> int: ...
def largest(values: NDArray[np.float32], count: int) -> NDArray[np.int32]: ...
def total(values: NDArray[np.float32]) -> float: ...

class Candidates:
    """Which tokens may be drawn."""

    def __init__(
        self,
        temperature: float,
        top_k: int,
        typical_p: float,
        top_p: float,
        min_p: float,
        xtc_threshold: float,
    ) -> None: ...
    def draw(self, logits: NDArray[np.float32], uniform: float, xtc: bool) -> int: ...
    def weights(
        self, logits: NDArray[np.float32], xtc: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...
