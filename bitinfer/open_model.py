"""``OpenModel``: a loaded model with its tokenizer, template and caches; `Model` generates with it.

It ties `engine` (ids to logits), `tokenizer` and `chat_template` together, and keeps one KV cache
between calls (`prefix_cache`).
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitinfer import runtime
from bitinfer.chat_template import Message
from bitinfer.embed import EmbedOptions, embed
from bitinfer.engine import Engine
from bitinfer.families.spec import num_parameters
from bitinfer.generate import Setup, Speculate, checked_speculate
from bitinfer.model_text import ModelText, encode_messages
from bitinfer.pooling import Pooling
from bitinfer.prefix_cache import PrefixCache
from bitinfer.progress import progress_bar
from bitinfer.sampling import SamplingParams
from bitinfer.speculation import check_vocabulary
from bitinfer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

_DEFAULT_MAX_TOKENS = 512  # where neither the caller nor generation_config.json sets a limit


class OpenModel:
    """What a model is made of, until it is closed; all that `Model` does but generate.

    Attributes:
        path: Folder or GGUF file that it was loaded from.
        sampling: Defaults of generation_config.json.
        max_tokens: Default limit of generated tokens.
        chat_template: The model's own template; None where it has none.
        speculate: How drafts are made where a call does not say.
    """

    def __init__(
        self,
        engine: Engine,
        path: Path,
        *,
        progress: bool | None = None,
        speculate: Speculate = "auto",
        draft_model: OpenModel | None = None,
    ) -> None:
        """Join ``engine`` with the text files in ``path``; `Model.load` is the usual way."""
        self.path = path
        self._text = ModelText(path)
        generation = self._text.generation
        self.sampling = SamplingParams.from_generation_config(generation)
        limit = generation.get("max_new_tokens")
        self.max_tokens = limit if isinstance(limit, int) and limit > 0 else _DEFAULT_MAX_TOKENS
        self.chat_template = self._text.chat_template
        self.speculate = checked_speculate(speculate)
        self._progress = progress
        self._draft_model = draft_model
        self._prefix_cache: PrefixCache | None = PrefixCache(engine)
        self._setup: Setup | None = None
        if self._text.has_tokenizer:
            self._setup = self._make_setup(engine)
        if draft_model is not None:
            names = draft_model.path.name, path.name
            check_vocabulary(draft_model.tokenizer, self.tokenizer, *names)

    @property
    def engine(self) -> Engine:
        """Runs token ids through the decoder.

        Raises:
            ValueError: the model is closed.
        """
        return self._open().engine

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer.

        Raises:
            TokenizerError: the folder has none.
        """
        return self.setup.tokenizer

    @property
    def setup(self) -> Setup:
        """Makes the samplers and replies of generations that are run elsewhere, as by a server.

        Raises:
            TokenizerError: the folder has no tokenizer.
        """
        if self._setup is None:
            self._setup = self._make_setup(self.engine)  # names the missing file
        return self._setup

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and reply together."""
        return self.engine.context_length

    @property
    def has_chat_template(self) -> bool:
        """Whether ``chat`` can be used."""
        return self.chat_template is not None

    def logits(self, token_ids: Sequence[int]) -> NDArray[np.float32]:
        """Logits after each token of a text, float32 ``(T, vocab_size)``, a fresh array.

        Raises:
            PromptError: there is no token, or one is outside the vocabulary.
            ContextLengthError: there are more than the context holds.
        """
        return self.engine.logits(token_ids)

    @functools.cached_property
    def pooling(self) -> Pooling:
        """What makes one vector of a text, as the model's files say; ConfigError: damaged ones."""
        return self._text.pooling(self.engine.spec)

    def embed(self, texts: Sequence[str], **options: Unpack[EmbedOptions]) -> NDArray[np.float32]:
        """One vector of each text (docs/embeddings.md), the same alone and beside others.

        Args:
            texts: Any number of texts; "<s>" and the like are plain text in them.
            **options: See `EmbedOptions`.

        Returns:
            float32 ``(len(texts), hidden_size)``, a fresh array.

        Raises:
            PromptError: a text has no token, or too many (ContextLengthError).
            TypeError, ValueError: ``texts`` is one text, or an option none of the choices.
        """
        name, recipe = self.path.name, self.pooling
        with progress_bar("embed", " texts", self._progress) as show:
            return embed(self.engine, self.tokenizer, recipe, texts, name, show, **options)

    def encode_chat(
        self, messages: Sequence[Message], given: Mapping[str, Any] | None = None
    ) -> list[int]:
        """Token ids of a conversation up to where the reply begins.

        Args:
            messages: As in `chat`.
            given: More names for the template, such as ``tools``.

        Raises:
            TokenizerError: the model has no chat template, or it refuses the messages.
            ValueError: the messages are malformed, or the model is closed.
        """
        spec = self.engine.spec  # a closed model starts no process
        template = self._text.needed_template(spec)
        return encode_messages(template, self.tokenizer, messages, given)

    def save_session(self, path: str | Path) -> int:
        """Write the KV cache that is kept between calls; a server's ``--session`` reads it too.

        Returns:
            How many tokens are in it; 0: nothing was run yet, and nothing is written.

        Raises:
            OSError: it cannot be written.
            ValueError: a generation is running, or the model is closed.
        """
        return self._open().save(Path(path))

    def load_session(self, path: str | Path) -> int:
        """Keep what `save_session`, or a server, wrote: what it holds of a prompt is not run again.

        Returns:
            How many tokens are kept; of several texts those of the one that was used last.

        Raises:
            SessionError: there is no such file, it is damaged, or another model made it.
            ValueError: a generation is running, or the model is closed.
        """
        return self._open().load(Path(path))

    def close(self) -> None:
        """Free weights and caches and end the template's process; the model is of no use after it.

        A stream that is running ends by itself and frees the weights then.
        """
        self._prefix_cache = None
        if self._draft_model is not None:
            self._draft_model.close()
        if self.chat_template is not None:
            self.chat_template.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self._prefix_cache is None:
            return f"<Model {self.path.name}: closed>"
        spec = self.engine.spec
        return (
            f"<Model {self.path.name}: {spec['model_type']}, {num_parameters(spec):,} "
            f"parameters, {self.engine.packing}, {runtime.active_isa()}>"
        )

    def _open(self) -> PrefixCache:
        """What a closed model has no more."""
        if (prefix_cache := self._prefix_cache) is None:
            raise ValueError(f"model {self.path.name}: it is closed: load it again")
        return prefix_cache

    def _make_setup(self, engine: Engine) -> Setup:
        draft = None if self._draft_model is None else self._draft_model._open()
        return Setup.of(engine, self._text.tokenizer(engine.spec), draft)
