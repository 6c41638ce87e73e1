"""``Model``: loads a model and generates text with it; what most programs need.

What it is made of stands in `open_model`, the loop in `generate`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitinfer.chat_template import Message
from bitinfer.engine import Engine
from bitinfer.generate import (
    Completion,
    GenerateOptions,
    Request,
    Setup,
    Speculate,
    TextStream,
    check_prompt,
    checked_speculate,
    generate_many,
    generate_step,
)
from bitinfer.model_folder import find_model
from bitinfer.open_model import OpenModel
from bitinfer.prefix_cache import PrefixCache
from bitinfer.progress import progress_bar

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Model(OpenModel):
    """A model that generates text; safe to share between threads.

    Generations in several threads run one after the other token by token; each has a cache of
    its own, and the kept one serves whoever comes first.
    """

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        packing: str = "auto",
        head: str = "int8",
        kv_cache: str = "f16",
        ffn: str = "auto",
        weights: str = "auto",
        num_threads: int | None = None,
        context_length: int | None = None,
        speculate: Speculate = "auto",
        draft_model: str | Path | None = None,
        progress: bool | None = None,
    ) -> Model:
        """Load a packed folder, a Hugging Face checkpoint or a GGUF file (packed in memory).

        Args:
            path_or_name: A folder or GGUF file; "tales-14m", the embedded model; or one of the hub,
                "owner/name", "owner/name@revision" or a short name, which is pulled at its first
                use (docs/hub.md).
            packing: "auto" (the fastest here), "i2", "t3", "t5", or "b1" of binary weights.
            head: "int8"; "source" for the checkpoint's own values; "6+2" or "5+3": int8 in two
                planes, faster for greedy and top-k replies, which are int8's: with 6+2 proven,
                with 5+3 by a statistical bound (docs/head.md).
            kv_cache: "f16", "f32" or "int8".
            ffn: "sparse" (decoding skips idle neurons of a model with squared ReLU, from copies of
                their weights; docs/ffn-sparsity.md), "dense", or "auto": dense, or what
                ``bitinfer tune`` found to be faster.
            weights: "mmap" (as the file has them, shared with other processes), "copy" (in huge
                pages) or "auto".
            num_threads: None: BITINFER_NUM_THREADS, else the physical performance cores.
            context_length: Most tokens of prompt and reply; None: what the model was made for.
            speculate: How tokens are drafted, so that several run at once where that is faster
                (docs/speculation.md): "auto", by the draft model, without one as "ngram", by what
                stood in the text before; or "off". No token depends on it.
            draft_model: A smaller model with the same vocabulary.
            progress: Bars on stderr while it loads and generates; None: in notebooks only.

        Raises:
            HubError: a model of the hub cannot be had.
            BitinferError: a folder is not there or not a usable model; the message says why.
            TokenizerError: the draft model has another vocabulary.
            ValueError: an argument is none of the choices.
        """
        with progress_bar(f"pull {path_or_name}", "B", progress) as show:
            path = find_model(path_or_name, lambda step, done, total: show(done, total))
        checked_speculate(speculate)
        draft = None
        if draft_model is not None:
            draft = cls.load(draft_model, num_threads=num_threads, progress=progress)
        with progress_bar(f"load {path.name}", "B", progress) as show:
            engine = Engine.load(
                path,
                packing=packing,
                head=head,
                kv_cache=kv_cache,
                ffn=ffn,
                weights=weights,
                num_threads=num_threads,
                context_length=context_length,
                progress=show,
            )
        return cls(engine, path, progress=progress, speculate=speculate, draft_model=draft)

    def generate(
        self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]
    ) -> Completion:
        """Continue ``prompt``.

        Args:
            prompt: Text, in which "<s>" and the like are plain text, or token ids.
            **options: See `GenerateOptions` and docs/sampling.md. temperature 0 is greedy, seed
                None is a new one each time. What is not given, or None, is the model's default.

        Raises:
            PromptError: the prompt has no token.
            ContextLengthError: the prompt leaves no room for one token.
            GrammarError: ``grammar``, ``regex`` or ``json_schema`` is in error; says where.
            TypeError: an option has no such name.
            ValueError: an option is out of range, or the model is closed.
        """
        return self._complete(self.stream(prompt, **options))

    def generate_n(
        self, prompt: str | Sequence[int], n: int, **options: Unpack[GenerateOptions]
    ) -> list[Completion]:
        """Continue ``prompt`` in ``n`` ways at once; options and errors as in `generate`.

        The prompt is run once, and each step reads the weights once for all. Completion i is what
        `generate` makes with the seed ``seed + i`` (modulo 2^64). Each takes a KV cache of its own,
        and nothing is drafted.
        """
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ValueError(f"n: expected a whole number from 1 up, got {n!r}")
        cache, setup, prompt_ids, request = self._begin(prompt, options)
        samplers = setup.samplers(request, prompt_ids, n)
        lease = cache.lend(prompt_ids)
        replies = [setup.reply(request, prompt_ids, s, lease.cached) for s in samplers]
        new_ids = prompt_ids[lease.cached :]
        steps = generate_many(
            cache.engine, new_ids, lease.cache, samplers, replies, setup.vocab_size
        )
        try:
            with progress_bar("generate", " tokens", self._progress) as show:
                for _ in steps:
                    show(sum(len(r.token_ids) for r in replies), n * request.rules.max_tokens)
        finally:
            lease.release(replies[0].token_ids)
        return [reply.completion for reply in replies]

    def stream(self, prompt: str | Sequence[int], **options: Unpack[GenerateOptions]) -> TextStream:
        """Like `generate`, but yields pieces of text as they come, also to ``async for``."""
        cache, setup, prompt_ids, request = self._begin(prompt, options)
        sampler = setup.sampler(request, prompt_ids)
        speculator = setup.speculator(request, prompt_ids, sampler)
        lease = cache.lend(prompt_ids)
        reply = setup.reply(request, prompt_ids, sampler, lease.cached, speculator)
        steps = functools.partial(
            generate_step,
            cache.engine,
            prompt_ids[lease.cached :],
            lease.cache,
            sampler,
            setup.vocab_size,
            speculator=speculator,
        )
        return TextStream(steps, reply, lease.release)

    def chat(self, messages: Sequence[Message], **options: Unpack[GenerateOptions]) -> Completion:
        """Reply to a conversation of dicts with "role" and "content"; options as in `generate`.

        Raises:
            TokenizerError: the model has no chat template, or it refuses the messages.
            ContextLengthError: the conversation leaves no room for one token.
            ValueError: the messages are malformed, an option is out of range, or as in `generate`.
        """
        return self._complete(self.chat_stream(messages, **options))

    def chat_stream(
        self, messages: Sequence[Message], **options: Unpack[GenerateOptions]
    ) -> TextStream:
        """Like `chat`, but yields pieces of text as they come, also to ``async for``."""
        return self.stream(self.encode_chat(messages), **options)

    def _begin(
        self, prompt: str | Sequence[int], options: GenerateOptions
    ) -> tuple[PrefixCache, Setup, list[int], Request]:
        """Check prompt and options; nothing has run or been lent yet."""
        cache, setup = self._open(), self.setup
        eos = setup.tokenizer.eos_token_ids
        request = Request.read(options, self.sampling, self.max_tokens, eos, self.speculate)
        prompt_ids = setup.prompt_ids(prompt)
        check_prompt(cache.engine, prompt_ids)
        return cache, setup, prompt_ids, request

    def _complete(self, stream: TextStream) -> Completion:
        """Run ``stream`` to its end."""
        with stream, progress_bar("generate", " tokens", self._progress) as show:
            for _ in stream:
                show(*stream.progress)
        return stream.completion
