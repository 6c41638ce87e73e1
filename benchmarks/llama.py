"""llama.cpp as a program to measure, through llama-cpp-python's thin layer over its C interface."""

from __future__ import annotations

import time
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_llama() -> None:
    """Leave with one line where what ``peers`` installs is missing."""
    for name in ("gguf", "llama_cpp"):
        if find_spec(name) is None:
            raise SystemExit(f"{name} is missing: pip install 'bitinfer[peers]'")


def llama_name() -> str:
    """Name and version."""
    return f"llama.cpp (llama-cpp-python {version('llama-cpp-python')})"


@cache
def _silent_log() -> Any:
    """A log callback that lives as long as the library, which calls it even as it ends."""
    import llama_cpp

    return llama_cpp.llama_log_callback(lambda level, text, data: None)


class Llama:
    """A GGUF file that llama.cpp has loaded.

    Attributes:
        num_threads: Threads that it uses; can be set.
        build: What it was compiled for.
    """

    def __init__(self, path: Path, threads: int, context: int) -> None:
        import llama_cpp

        self._lib = llama_cpp
        llama_cpp.llama_log_set(_silent_log(), None)
        model_options = llama_cpp.llama_model_default_params()
        model_options.n_gpu_layers = 0
        self._model = llama_cpp.llama_model_load_from_file(str(path).encode(), model_options)
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        self._context = llama_cpp.llama_init_from_model(self._model, options)
        if not self._context:
            raise SystemExit(f"{path}: llama.cpp cannot load it")
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self.num_threads = threads
        self.build = llama_cpp.llama_print_system_info().decode().strip(" |")

    @property
    def num_threads(self) -> int:
        """Threads of a prompt and of one token."""
        return int(self._lib.llama_n_threads(self._context))

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        self._lib.llama_set_n_threads(self._context, count, count)

    def rate(self, prompt: int, generated: int) -> float:
        """Tokens/s of a prompt up to its first token, or of tokens after a prompt of one."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        ids = np.random.default_rng(0).integers(self._vocab_size, size=prompt or 1).tolist()
        if not prompt:
            ids = [self._step(ids)]
        start = time.perf_counter()
        for _ in range(generated or 1):
            ids = [self._step(ids)]
        return (prompt + generated) / (time.perf_counter() - start)

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        """Logits (len(ids), vocabulary) of a text from its start, as many as the context holds."""
        lib = self._lib
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)
        batch = lib.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for at, token_id in enumerate(ids):
            batch.token[at], batch.pos[at], batch.logits[at] = token_id, at, True
            batch.n_seq_id[at], batch.seq_id[at][0] = 1, 0
        failed = lib.llama_decode(self._context, batch)
        lib.llama_batch_free(batch)
        if failed:
            raise SystemExit("llama.cpp: llama_decode failed")
        values = lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(values, (len(ids), self._vocab_size)).copy()

    def _step(self, ids: list[int]) -> int:
        """Run ids and return the likeliest next one."""
        lib = self._lib
        tokens = (lib.llama_token * len(ids))(*ids)
        if lib.llama_decode(self._context, lib.llama_batch_get_one(tokens, len(ids))):
            raise SystemExit("llama.cpp: llama_decode failed")
        logits = lib.llama_get_logits_ith(self._context, -1)
        return int(np.ctypeslib.as_array(logits, (self._vocab_size,)).argmax())
