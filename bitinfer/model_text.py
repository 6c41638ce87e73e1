"""The text side of a model: generation defaults, chat template, tokenizer and pooling.

A model folder has them in files of their own, a GGUF file in its metadata.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitinfer.chat_template import ChatTemplate, Message
from bitinfer.errors import ConfigError, TokenizerError
from bitinfer.families.gguf_text import GgufText, has_tokenizer, read_text
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.gguf_files import find_gguf
from bitinfer.formats.packed import is_packed_folder
from bitinfer.json_file import read_json_object
from bitinfer.pooling import Pooling
from bitinfer.tokenizer import Tokenizer
from bitinfer.tokenizer_file import read_tokenizer, tokenizer_file


def require_tokenizer(path: Path) -> None:
    """Refuse a model without a tokenizer, before its weights are packed in vain.

    What is no model folder at all passes: loading it says so.

    Raises:
        TokenizerError: there is none.
    """
    packed = is_packed_folder(path)
    gguf = None if packed else find_gguf(path)
    if gguf is not None and not has_tokenizer(GgufFile(gguf)):
        raise _without_tokenizer(path)
    model = packed or (gguf is None and (path / "config.json").is_file())
    if model and tokenizer_file(path) is None:
        read_tokenizer(path / "tokenizer.json", f"tokenizer.json in {path}")  # names the mend


def _without_tokenizer(path: Path) -> TokenizerError:
    return TokenizerError(
        f"{path}: expected a tokenizer, got a file without one: use another file of this model"
    )


class ModelText:
    """What a model folder or GGUF file says of text.

    Attributes:
        generation: Content of generation_config.json.
        chat_template: The model's own template; None where it has none.
    """

    def __init__(self, path: Path) -> None:
        """Read ``path``; the tokenizer is built when it is asked for.

        Raises:
            BitinferError: a file is damaged.
        """
        self._path = path
        gguf = None if is_packed_folder(path) else find_gguf(path)
        self._gguf: GgufText | None = None if gguf is None else read_text(GgufFile(gguf))
        self.generation: Mapping[str, Any] = {}
        if self._gguf is not None:
            template = self._gguf.template
            self.chat_template = ChatTemplate(template) if template else None
            return
        file = path / "generation_config.json"
        if file.exists():
            self.generation = read_json_object(file, ConfigError)
        self.chat_template = ChatTemplate.load(path)

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is one."""
        if self._gguf is not None:
            return self._gguf.backend is not None
        return tokenizer_file(self._path) is not None

    def needed_template(self, spec: Mapping[str, Any]) -> ChatTemplate:
        """The chat template.

        Raises:
            TokenizerError: there is none; says what to do.
        """
        if self.chat_template is None:
            embeds = self.pooling(spec).trained
            use = "an embedding model, use embed" if embeds else "a base model, use generate"
            raise TokenizerError(
                f"chat template: none in {self._path}: this is {use}, or put a chat_template.jinja"
                " there"
            )
        return self.chat_template

    def pooling(self, spec: Mapping[str, Any]) -> Pooling:
        """What makes one vector of a text.

        Raises:
            ConfigError: a file is damaged, or asks for what is not known here.
        """
        if self._gguf is not None and self._gguf.pooling is not None:
            return self._gguf.pooling
        return Pooling.load(self._path, spec)

    def tokenizer(self, spec: Mapping[str, Any]) -> Tokenizer:
        """Build the tokenizer of a model of this spec.

        Raises:
            TokenizerError: there is none, it is damaged, or it does not fit the model.
        """
        known: dict[str, Any] = {
            "bos_token_id": spec["bos_token_id"],
            "eos_token_ids": spec["eos_token_ids"],
            "template": self.chat_template.source if self.chat_template else "",
        }
        if self._gguf is None:
            return Tokenizer.load(self._path, vocab_size=spec["vocab_size"], **known)
        if self._gguf.backend is None:
            raise _without_tokenizer(self._path)
        settings, where = self._gguf.settings, self._path.name
        tokenizer = Tokenizer(self._gguf.backend, **known, settings=settings, where=where)
        tokenizer.check_fits(spec["vocab_size"], where)
        return tokenizer


def encode_messages(
    template: ChatTemplate,
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    given: Mapping[str, Any] | None,
) -> list[int]:
    """Token ids of a conversation; ``given`` are more names for the template.

    Raises:
        TokenizerError: the template refuses the messages.
        ValueError: the messages are malformed.
    """
    rendered = template.render(
        messages,
        control_tokens=tokenizer.control_tokens,
        variables={"bos_token": tokenizer.bos_token, "eos_token": tokenizer.eos_token},
        given=given,
    )
    return tokenizer.encode_rendered(rendered.text, rendered.marker)
