"""``Engine``: a model folder loaded into the native decoder; the Python face of csrc/model.

It runs token ids; text, sampling and the generation loop stand above it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from bitinfer import _core, runtime
from bitinfer.convert import PLANE_HEADS, Progress, check_choices
from bitinfer.errors import CheckpointError, ContextLengthError, PromptError
from bitinfer.formats.packed import HEADS
from bitinfer.loading import LoadedModel, load_folder
from bitinfer.resident import WEIGHTS, has_room

KvBlock = _core.KvBlock
KvCache = _core.KvCache
KvPool = _core.KvPool
KV_BLOCK = _core.KV_BLOCK  # positions of a block of a cache
Rows = Literal["last", "all", "none"]  # of a sequence, for which logits are made
KV_CACHES = ("f16", "f32", "int8")
FFNS = ("auto", "dense", "sparse")


class Engine:
    """A loaded model, ready to run token ids.

    Attributes:
        folder: The model folder; tokenizer and generation config lie there.
        spec: The decoder's spec (``families/spec.py``).
        packing: Layout in memory of the ternary matrices.
        head: ``int8``, ``source``, ``6+2`` or ``5+3``.
        kv_cache: dtype of new caches.
        ffn: ``dense``, or ``sparse``: decoding skips idle neurons where that is faster.
        weights: ``mmap``: read where the file is mapped; ``copy``: in memory of its own.
        context_length: Positions that a new cache holds.
        model_key: What ``bitinfer tune`` knows the model by.
        tuned: What ``bitinfer tune`` found, which the defaults follow; None: nothing.
        notes: Sentences for the user about work done at load.
    """

    def __init__(
        self,
        folder: Path,
        model: LoadedModel,
        *,
        head: str,
        kv_cache: str,
        ffn: str,
        num_threads: int | None,
        context_length: int | None,
    ) -> None:
        """Build the decoder; use ``Engine.load``."""
        spec, tuned = model.spec, model.tuned
        trained = spec["max_position_embeddings"]
        length = trained if context_length is None else context_length
        if not 1 <= length <= trained:
            raise ValueError(f"context_length: expected 1 to {trained}, got {length}")
        self.folder = folder
        self.spec = spec
        self.packing = model.packing
        self.head = head
        self.kv_cache = kv_cache
        self.weights = "mmap" if model.mapped else "copy"
        self.model_key = model.key
        self.tuned = tuned
        self.context_length = length
        self.notes = model.notes
        threads = num_threads
        if threads is None:
            threads = runtime.num_threads(tuned.threads if tuned else None)
        _check_threads(threads)
        try:
            self._decoder = _core.Decoder({**spec, "head": head}, model.weights, threads)
        except ValueError as cause:
            mend = "the file is damaged, get it again"
            raise CheckpointError(f"{cause} in {folder}: {mend}") from None
        if tuned and tuned.packing == model.packing:
            self._decoder.prefer_gemv(tuned.gemv)
        if ffn == "auto":
            own = tuned is not None and tuned.model == model.key
            fits = own and has_room(sparse_ffn_bytes(spec, model.packing))
            ffn = tuned.ffn if tuned and fits else "dense"
        self.ffn = ffn
        self._decoder.sparse_ffn = ffn == "sparse"

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        packing: str = "auto",
        head: str = "int8",
        kv_cache: str = "f16",
        ffn: str = "auto",
        weights: str = "auto",
        num_threads: int | None = None,
        context_length: int | None = None,
        progress: Progress | None = None,
    ) -> Engine:
        """Load a packed folder, or a raw Hugging Face folder (packed in memory, which is noted).

        Args:
            path: The folder.
            packing: ``i2``, ``t3``, ``t5``, ``b1`` (of weights -1 and 1 only), or ``auto``: the
                fastest here, as tuned or by records.
            head: ``int8``; ``source``: the checkpoint's own dtype; ``6+2`` or ``5+3``: the int8
                head in two planes, of which ``forward`` with ``top_k`` reads one for most rows.
                The largest logits are int8's: with 6+2 proven, with 5+3 by a statistical bound.
            kv_cache: ``f16``, ``f32`` or ``int8``.
            ffn: ``sparse``: decoding reads no weights of idle neurons, from copies by neuron (a
                quarter byte for each weight of ``up`` and ``down``), for models with squared
                ReLU; ``dense``; ``auto``: dense, or what ``bitinfer tune`` found to be faster.
            weights: ``mmap``: as the file has them, shared with other processes; ``copy``: in
                huge pages; ``auto``: mapped, or what ``bitinfer tune`` found to be faster.
            num_threads: None: BITINFER_NUM_THREADS, else as tuned, else the performance cores.
            context_length: Positions a cache holds; None: all that the model was made for.
            progress: Called with bytes done and bytes in all, if weights are packed or copied.

        Raises:
            BitinferError: the folder cannot be used as it is (see errors.py).
            ValueError: an argument is not one of the choices or out of range.
        """
        check_choices(packing, head, (*HEADS, *PLANE_HEADS))
        if weights not in WEIGHTS:
            raise ValueError(f"weights: expected {', '.join(WEIGHTS)}, got {weights!r}")
        if kv_cache not in KV_CACHES:
            raise ValueError(f"kv_cache: expected {', '.join(KV_CACHES)}, got {kv_cache!r}")
        if ffn not in FFNS:
            raise ValueError(f"ffn: expected {', '.join(FFNS)}, got {ffn!r}")
        if num_threads is not None:
            _check_threads(num_threads)
        runtime.active_isa()  # a wrong BITINFER_ISA speaks here, as UnsupportedIsaError
        folder = Path(path)
        model = load_folder(folder, packing=packing, head=head, weights=weights, progress=progress)
        return cls(
            folder,
            model,
            head=head,
            kv_cache=kv_cache,
            ffn=ffn,
            num_threads=num_threads,
            context_length=context_length,
        )

    @property
    def vocab_size(self) -> int:
        """Logits per position."""
        return int(self.spec["vocab_size"])

    @property
    def num_threads(self) -> int:
        """Threads that a forward step uses, 1 to 256; can be set."""
        return self._decoder.num_threads

    @num_threads.setter
    def num_threads(self, count: int) -> None:
        _check_threads(count)
        self._decoder.num_threads = count

    @property
    def gemv_family(self) -> str:
        """The GEMV of decode: ``addsub`` or ``dot``."""
        return self._decoder.gemv_family

    def prefer_gemv(self, family: str) -> None:
        """Take ``addsub``, ``dot`` or ``auto`` (as recorded) where BITINFER_GEMV says nothing."""
        self._decoder.prefer_gemv(family)

    @property
    def prefill_chunk(self) -> int:
        """Tokens of a prompt that go through the layers at a time; can be set, changes no bit."""
        return self._decoder.prefill_chunk

    @prefill_chunk.setter
    def prefill_chunk(self, tokens: int) -> None:
        self._decoder.prefill_chunk = tokens

    def ffn_density(self) -> list[tuple[float, float]]:
        """For each layer the shares of neurons that took part in the last decoded tokens.

        First those whose gate is positive, then those whose activation has a code other than 0.
        Empty where ``ffn`` is dense.
        """
        return self._decoder.ffn_density()

    def bytes_per_token(self) -> dict[str, int]:
        """Bytes that a decode step reads: ``ternary``, ``head``, ``float``, ``kv_per_position``."""
        return self._decoder.bytes_per_token(self.kv_cache)

    def head_candidates(self) -> int:
        """Rows of a 6+2 or 5+3 head whose both planes the last step read, for all its logits."""
        return self._decoder.head_candidates()

    def new_cache(self, capacity: int | None = None) -> KvCache:
        """An empty KV cache for ``capacity`` positions (default: ``context_length``)."""
        positions = self.context_length if capacity is None else capacity
        if not 1 <= positions <= self.spec["max_position_embeddings"]:
            raise ValueError(
                f"capacity: expected 1 to {self.spec['max_position_embeddings']}, got {positions}"
            )
        return self._decoder.new_cache(positions, self.kv_cache)

    def new_pool(self, num_blocks: int) -> KvPool:
        """Memory for caches that share beginnings: blocks of ``KV_BLOCK`` positions, no more.

        Raises:
            ValueError: ``num_blocks`` is below 1, or fits no address space.
        """
        return self._decoder.new_pool(num_blocks, self.kv_cache)

    def forward(
        self,
        token_ids: Sequence[Sequence[int] | NDArray[np.integer[Any]]],
        caches: Sequence[KvCache],
        *,
        logits: Rows | Sequence[Rows] = "last",
        top_k: int = 0,
        vocab_size: int = 0,
    ) -> NDArray[np.float32]:
        """Append tokens to each cache and return logits; after an error the caches are unchanged.

        Args:
            token_ids: For each cache the ids to append, at least one.
            caches: From ``new_cache``, each its own; grow by the lengths of ``token_ids``.
            logits: ``last`` (a row a cache), ``all`` (a row a token) or ``none`` (no row); also
                one of these for each cache.
            top_k: Where only the so many largest logits of a row matter, ties among them: others
                may then be -inf, all that are not are exact. 0: all are wanted.
            vocab_size: Ids below it compete for ``top_k``; 0: all.

        Returns:
            float32 ``(rows, vocab_size)``, rows in the order of the ids, a fresh array.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: a cache has not so many positions left.
            ValueError: ``top_k`` is negative, or ``vocab_size`` above the model's, or the caches'
                pool has too few blocks.
        """
        batch = [self.check_ids(ids) for ids in token_ids]
        for ids, cache in zip(batch, caches, strict=True):
            left = cache.capacity - cache.length
            if len(ids) > left:
                raise ContextLengthError(
                    f"token_ids: expected at most {left} more tokens in a context of"
                    f" {cache.capacity}, got {len(ids)}: shorten it, or raise context_length"
                    f" (up to {self.spec['max_position_embeddings']})"
                )
        return self._decoder.forward(
            batch, list(caches), logits, top_k=top_k, vocab_size=vocab_size
        )

    def decode(
        self,
        token_id: int,
        cache: KvCache,
        out: NDArray[np.float32],
        *,
        top_k: int = 0,
        vocab_size: int = 0,
    ) -> None:
        """Append one token and write the logits after it to ``out``; the lean form of `forward`.

        Args:
            token_id: The token.
            cache: From ``new_cache``; grows by one.
            out: float32 ``(vocab_size,)``, contiguous.
            top_k, vocab_size: As in `forward`.

        Raises:
            ValueError: the cache is full, the id outside the vocabulary, or as in `forward`.
        """
        self._decoder.decode(token_id, cache, out, top_k, vocab_size)

    def logits(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.float32]:
        """Logits at every position of a text, float32 ``(T, vocab_size)``; keeps no state.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: more ids than ``context_length``.
        """
        ids = self._check_length(token_ids)
        return self._decoder.forward([ids], [self.new_cache(len(ids))], "all")

    def hidden(
        self,
        token_ids: Sequence[Sequence[int] | NDArray[np.integer[Any]]],
        *,
        rows: Rows = "all",
    ) -> NDArray[np.float32]:
        """Hidden states of texts, after the final norm: what the head multiplies; keeps no state.

        Args:
            token_ids: The ids of each text, at least one. A text has the same states alone and
                beside others.
            rows: ``all``: a row a token; ``last``: of each text's last token.

        Returns:
            float32 ``(rows, hidden_size)``, rows in the order of the ids, a fresh array.

        Raises:
            PromptError: no ids, or one outside the vocabulary.
            ContextLengthError: a text has more ids than ``context_length``.
        """
        batch = [self._check_length(ids) for ids in token_ids]
        return self._decoder.hidden(batch, [self.new_cache(len(ids)) for ids in batch], rows)

    def _check_length(
        self, token_ids: Sequence[int] | NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        ids = self.check_ids(token_ids)
        if len(ids) > self.context_length:
            raise ContextLengthError(
                f"token_ids: expected at most {self.context_length} tokens, the context, got"
                f" {len(ids)}: shorten the prompt"
            )
        return ids

    def check_ids(self, token_ids: Sequence[int] | NDArray[np.integer[Any]]) -> NDArray[np.int32]:
        """Token ids as int32 ``(T,)``.

        Raises:
            PromptError: none at all, not whole numbers, or one outside the vocabulary.
        """
        try:
            ids = np.asarray(token_ids)
        except (ValueError, OverflowError):
            ids = np.empty((0, 0))
        if ids.ndim != 1 or ids.size == 0:
            raise PromptError(
                f"token_ids: expected at least one token id, got {ids.size}: give a prompt"
            )
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= self.vocab_size:
            raise PromptError(
                f"token_ids: expected whole numbers from 0 to {self.vocab_size - 1}, got"
                f" {_first_bad(ids, self.vocab_size)}"
            )
        return np.ascontiguousarray(ids, dtype=np.int32)


def sparse_ffn_bytes(spec: Mapping[str, Any], packing: str) -> int:
    """What a sparse FFN takes in memory: ``down`` by column and, if not i2, ``up``, both in i2."""
    size = int(_core.packed_bytes("i2", spec["intermediate_size"], spec["hidden_size"]))
    return int(spec["num_hidden_layers"]) * size * (1 + (packing != "i2"))


def _check_threads(count: int) -> None:
    if not 1 <= count <= runtime.MAX_THREADS:
        raise ValueError(f"num_threads: expected 1 to {runtime.MAX_THREADS}, got {count}")


def _first_bad(ids: NDArray[Any], vocab_size: int) -> str:
    if ids.dtype.kind not in "iu":
        return f"values of type {ids.dtype}"
    at = int(np.flatnonzero((ids < 0) | (ids >= vocab_size))[0])
    return f"{ids[at]} at position {at}"
