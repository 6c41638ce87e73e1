"""``Setup``: makes the sampler and the reply of a request; what generations of one model share."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from bitinfer.engine import Engine
from bitinfer.generate.options import Request
from bitinfer.generate.reply import Reply
from bitinfer.grammar import GrammarCompiler
from bitinfer.prefix_cache import PrefixCache
from bitinfer.sampling import Sampler, dry_breaks
from bitinfer.speculation import DraftModel, Pace, PromptLookup, Speculator
from bitinfer.tokenizer import Tokenizer

# Below so many bytes a token takes hardly longer than to look up a draft and to time it.
_LOOKUP_BYTES = 8_000_000


class Setup:
    """Beginnings of generations; safe to share between threads.

    Attributes:
        tokenizer: The model's.
        vocab_size: Ids below it may be generated.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        draft: PrefixCache | None = None,
        *,
        auto_lookup: bool = True,
    ) -> None:
        """Begin with what belongs to the model.

        Args:
            tokenizer: The model's.
            vocab_size: Rows of its embedding (there can be padding rows).
            draft: Caches of a draft model with the same vocabulary.
            auto_lookup: Whether "auto" looks drafts up where there is no draft model.
        """
        self.tokenizer = tokenizer
        self._draft = draft
        self._auto_lookup = auto_lookup
        self._paces = Pace(PromptLookup.hopes), Pace(DraftModel.hopes)
        self.vocab_size = min(tokenizer.vocab_size, vocab_size)
        self._breaks = dry_breaks(tokenizer.decode, tokenizer.special_ids)
        self._grammars = GrammarCompiler(tokenizer)

    @classmethod
    def of(cls, engine: Engine, tokenizer: Tokenizer, draft: PrefixCache | None) -> Setup:
        """The setup of a model; "auto" looks drafts up where that can pay."""
        read = engine.bytes_per_token()
        lookup = read["ternary"] + read["head"] >= _LOOKUP_BYTES
        return cls(tokenizer, engine.vocab_size, draft, auto_lookup=lookup)

    def prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        """Ids of a prompt, with BOS where it is a text and the model expects one."""
        if not isinstance(prompt, str):
            return [int(i) for i in prompt]
        return self.tokenizer.encode(prompt, add_special_tokens=True) if prompt else []

    def sampler(self, request: Request, prompt_ids: Sequence[int]) -> Sampler:
        """A sampler at the beginning of a reply.

        Raises:
            GrammarError: the grammar is in error.
            ValueError: ``logit_bias`` names an id that the vocabulary lacks.
        """
        for token_id in request.sampling.logit_bias:
            if token_id >= self.vocab_size:
                raise ValueError(
                    f"logit_bias: expected token ids below {self.vocab_size}, got {token_id}"
                )
        return Sampler(
            request.sampling,
            prompt_ids=prompt_ids,
            breaks=self._breaks,
            processor=request.processor,
            constraint=self._grammars.compile(*request.grammar) if request.grammar else None,
            num_logprobs=request.num_logprobs,
        )

    def samplers(self, request: Request, prompt_ids: Sequence[int], n: int) -> list[Sampler]:
        """Samplers of ``n`` replies, the i-th with the seed ``seed + i``; errors of `sampler`."""
        seed = request.sampling.seed
        first = secrets.randbits(64) if seed is None else int(seed)
        return [self.sampler(request.with_seed(first + i), prompt_ids) for i in range(n)]

    def speculator(
        self, request: Request, prompt_ids: Sequence[int], sampler: Sampler
    ) -> Speculator | None:
        """What drafts a reply that ``sampler`` will choose; None if nothing shall."""
        lookup_pace, model_pace = self._paces
        auto = request.speculate == "auto"
        if auto and self._draft is not None:
            source = DraftModel(self._draft, prompt_ids, sampler.guess, self.vocab_size)
            return Speculator(source, model_pace)
        if request.speculate == "ngram" or (auto and self._auto_lookup):
            return Speculator(PromptLookup(prompt_ids), lookup_pace)
        return None

    def reply(
        self,
        request: Request,
        prompt_ids: Sequence[int],
        sampler: Sampler,
        cached_tokens: int,
        speculator: Speculator | None = None,
    ) -> Reply:
        """An empty reply whose tokens ``sampler`` will choose; its time begins now."""
        return Reply(
            self.tokenizer,
            prompt_ids,
            request.rules,
            cached_tokens=cached_tokens,
            logprobs=None if request.num_logprobs is None else sampler.logprobs,
            speculator=speculator,
        )
