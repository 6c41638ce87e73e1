"""``Model``: a loaded model with its tokenizer and template; what most programs need.

It ties `engine` (ids to logits), `tokenizer`, `chat_template` and the loop of `generate` together
and keeps one KV cache, so that a prompt that continues the last one runs only its new tokens.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import runtime
from bitinfer.chat_template import ChatTemplate, Message
from bitinfer.engine import Engine, KvCache
from bitinfer.errors import CheckpointError, ConfigError, TokenizerError
from bitinfer.generate import (
    Completion,
    StopRules,
    TextStream,
    check_prompt,
    generate,
    generate_step,
)
from bitinfer.json_file import read_json_object
from bitinfer.sampling import Sampler, SamplingParams
from bitinfer.tokenizer import Tokenizer

_DEFAULT_MAX_TOKENS = 512  # where neither the caller nor generation_config.json sets a limit


class Model:
    """A model that generates text; safe to share between threads.

    Generations in several threads run one after the other token by token; each has a cache of
    its own, and the kept one serves whoever comes first.

    Attributes:
        path: Folder that it was loaded from.
        engine: Runs ids through the decoder.
        sampling: Defaults of generation_config.json.
        max_tokens: Default limit of generated tokens.
    """

    def __init__(self, engine: Engine, path: Path) -> None:
        """Join ``engine`` with the text files in ``path``; `load` is the usual way."""
        self.engine = engine
        self.path = path
        file = path / "generation_config.json"
        generation = read_json_object(file, ConfigError) if file.exists() else {}
        self.sampling = SamplingParams.from_generation_config(generation)
        limit = generation.get("max_new_tokens")
        self.max_tokens = limit if isinstance(limit, int) and limit > 0 else _DEFAULT_MAX_TOKENS
        self._template = ChatTemplate.load(path)
        self._tokenizer: Tokenizer | None = None
        if (path / "tokenizer.json").exists():
            self._tokenizer = self._load_tokenizer()
        self._lock = threading.Lock()  # guards the three below
        self._kept: KvCache | None = None
        self._kept_ids: list[int] = []  # what the kept cache holds
        self._kept_busy = False

    @classmethod
    def load(
        cls,
        path_or_name: str | Path,
        *,
        packing: str = "auto",
        head: str = "int8",
        kv_cache: str = "f16",
        num_threads: int | None = None,
        context_length: int | None = None,
    ) -> Model:
        """Load a packed folder or a Hugging Face checkpoint (which is packed in memory).

        Args:
            path_or_name: A folder, or "tales-6m", the embedded model.
            packing: "auto" (the fastest here), "i2", "t3" or "t5".
            head: "int8", or "source" for the checkpoint's own values.
            kv_cache: "f16", "f32" or "int8".
            num_threads: None: BITINFER_NUM_THREADS, else the physical performance cores.
            context_length: Most tokens of prompt and reply; None: what the model was made for.

        Raises:
            BitinferError: the folder is not there or not a usable model; the message says why.
            ValueError: an argument is none of the choices.
        """
        path = find_model(path_or_name)
        engine = Engine.load(
            path,
            packing=packing,
            head=head,
            kv_cache=kv_cache,
            num_threads=num_threads,
            context_length=context_length,
        )
        return cls(engine, path)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            TokenizerError: the folder has none.
        """
        if self._tokenizer is None:
            self._tokenizer = self._load_tokenizer()  # names the missing file
        return self._tokenizer

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and reply together."""
        return self.engine.context_length

    @property
    def has_chat_template(self) -> bool:
        """Whether ``chat`` can be used."""
        return self._template is not None

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token of a text, float32 ``(T, vocab_size)``, a fresh array.

        Raises:
            PromptError: there is no token, or one is outside the vocabulary.
            ContextLengthError: there are more than the context holds.
        """
        return self.engine.logits(token_ids)

    def generate(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        seed: int | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        stop: str | Sequence[str] = (),
    ) -> Completion:
        """Continue ``prompt``.

        Args:
            prompt: Text, in which "<s>" and the like are plain text, or token ids.
            max_tokens: Most tokens to generate.
            temperature, seed, top_k, top_p, min_p: See `SamplingParams`; temperature 0 is greedy,
                seed None is a new one each time. Defaults: the model's generation_config.json.
            stop: Text, or several, at which to end; it is not part of the result.

        Raises:
            PromptError: the prompt has no token.
            ContextLengthError: the prompt leaves no room for one token.
            ValueError: an option is out of range.
        """
        options = {"temperature": temperature, "seed": seed, "top_k": top_k}
        options |= {"top_p": top_p, "min_p": min_p}
        return generate(self._start(self._prompt_ids(prompt), max_tokens, stop, options))

    def stream(
        self,
        prompt: str | Sequence[int],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> TextStream:
        """Like `generate`, but yields pieces of text as they come."""
        return self._start(self._prompt_ids(prompt), max_tokens, stop, sampling)

    def chat(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> Completion:
        """Reply to a conversation of dicts with "role" and "content"; options as in `generate`.

        Raises:
            TokenizerError: the model has no chat template, or it refuses the messages.
            ContextLengthError: the conversation leaves no room for one token.
            ValueError: the messages are malformed or an option is out of range.
        """
        return generate(self.chat_stream(messages, max_tokens=max_tokens, stop=stop, **sampling))

    def chat_stream(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int | None = None,
        stop: str | Sequence[str] = (),
        **sampling: Any,
    ) -> TextStream:
        """Like `chat`, but yields pieces of text as they come."""
        return self._start(self.encode_chat(messages), max_tokens, stop, sampling)

    def encode_chat(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a conversation up to where the reply begins.

        Raises:
            TokenizerError: the model has no chat template, or it refuses the messages.
            ValueError: the messages are malformed.
        """
        if self._template is None:
            raise TokenizerError(
                f"chat template: none in {self.path}: this is a base model, use generate, "
                "or put a chat_template.jinja there"
            )
        tokenizer = self.tokenizer
        rendered = self._template.render(
            messages,
            control_tokens=tokenizer.control_tokens,
            variables={"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token},
        )
        return tokenizer.encode_rendered(rendered.text, rendered.marker)

    def close(self) -> None:
        """Free the cache and end the template's process; a later call starts them again."""
        with self._lock:
            self._kept, self._kept_ids = None, []
        if self._template is not None:
            self._template.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        spec = self.engine.spec
        return (
            f"<Model {self.path.name}: {spec['model_type']}, {num_parameters(spec):,} "
            f"parameters, {self.engine.packing}, {runtime.active_isa()}>"
        )

    def _load_tokenizer(self) -> Tokenizer:
        spec = self.engine.spec
        return Tokenizer.load(
            self.path,
            vocab_size=spec["vocab_size"],
            bos_token_id=spec["bos_token_id"],
            eos_token_ids=spec["eos_token_ids"],
            template=self._template.source if self._template else "",
        )

    def _prompt_ids(self, prompt: str | Sequence[int]) -> list[int]:
        if not isinstance(prompt, str):
            return [int(i) for i in prompt]
        return self.tokenizer.encode(prompt, add_special_tokens=True) if prompt else []

    def _start(
        self,
        prompt_ids: list[int],
        max_tokens: int | None,
        stop: str | Sequence[str],
        sampling: dict[str, Any],
    ) -> TextStream:
        """Check everything, then set up a generation; nothing runs before its first piece."""
        tokenizer = self.tokenizer
        rules = StopRules(
            max_tokens=self.max_tokens if max_tokens is None else max_tokens,
            eos_token_ids=frozenset(tokenizer.eos_token_ids),
            stops=(stop,) if isinstance(stop, str) else tuple(stop),
        )
        sampler = Sampler(self.sampling.with_options(**sampling), prompt_ids=prompt_ids)
        vocab_size = min(tokenizer.vocab_size, self.engine.vocab_size)
        check_prompt(self.engine, prompt_ids)
        cache, kept = self._take_cache(prompt_ids)
        cached = cache.length
        steps = generate_step(self.engine, prompt_ids[cached:], cache, sampler, vocab_size)

        def release(generated: Sequence[int]) -> None:
            if kept:
                self._return_cache(cache, [*prompt_ids, *generated])

        return TextStream(
            steps,
            tokenizer=tokenizer,
            prompt_ids=prompt_ids,
            rules=rules,
            cached_tokens=cached,
            release=release,
        )

    def _take_cache(self, prompt_ids: Sequence[int]) -> tuple[KvCache, bool]:
        """A cache that holds a beginning of the prompt (never all of it), and whether it is kept.

        While another generation has the kept one, a new one is made.
        """
        with self._lock:
            if self._kept_busy:
                return self.engine.new_cache(), False
            self._kept_busy = True
            if self._kept is None:
                self._kept, self._kept_ids = self.engine.new_cache(), []
            same = common_prefix(self._kept_ids, prompt_ids[:-1])
            self._kept.trim(same)
            del self._kept_ids[same:]
            return self._kept, True

    def _return_cache(self, cache: KvCache, token_ids: Sequence[int]) -> None:
        """Note what the kept cache holds now (a stopped prefill may hold less) and free it."""
        with self._lock:
            self._kept_ids = list(token_ids[: cache.length])
            self._kept_busy = False


def num_parameters(spec: Mapping[str, Any]) -> int:
    """Weights of all kinds in a model of that spec; a tied head counts once."""
    hidden, inner = spec["hidden_size"], spec["intermediate_size"]
    queries = spec["num_attention_heads"] * spec["head_dim"]
    keys = spec["num_key_value_heads"] * spec["head_dim"]
    layer = 2 * hidden * (queries + keys) + 3 * hidden * inner + 2 * hidden
    layer += spec["attn_sub_norm"] * queries + spec["ffn_sub_norm"] * inner
    layer += spec["attention_bias"] * (queries + 2 * keys + hidden)
    embeddings = (1 if spec["tie_word_embeddings"] else 2) * spec["vocab_size"] * hidden
    return int(embeddings + spec["num_hidden_layers"] * layer + hidden)


def find_model(path_or_name: str | Path) -> Path:
    """The folder of a model.

    Raises:
        CheckpointError: it is neither a folder nor the embedded model's name.
    """
    path = Path(path_or_name)
    embedded = runtime.default_model()
    if path.is_dir():
        return path
    if str(path_or_name) == embedded.name:
        return embedded
    got = "a file" if path.exists() else "nothing of that name"
    raise CheckpointError(
        f"model {str(path_or_name)!r}: expected a model folder or {embedded.name!r} "
        f"(the embedded model), got {got}"
    )


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading ids are the same."""
    most = min(len(a), len(b))
    return next((n for n in range(most) if a[n] != b[n]), most)
