"""What a GGUF file's metadata say of text, in the form of the files beside a checkpoint.

The official GGUF of bitnet-b1.58-2B-4T names the end of a text but not of a turn as its end, and
its converter wrote a chat template into it that the model was not trained with; both are mended.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

from bitinfer.errors import ConfigError
from bitinfer.formats.gguf import GgufFile
from bitinfer.formats.gguf_tokenizer import tokenizer_from_gguf
from bitinfer.json_file import shown
from bitinfer.pooling import Pooling

_MODEL = "tokenizer.ggml.model"
POOLING_KEY = "pooling_type"  # of embedding models, behind the architecture
_POOLINGS = {1: "mean", 2: "cls", 3: "last"}  # 0: none
_NO_TOKENIZER = ("none", "no_vocab")
_TEMPLATE = "tokenizer.chat_template"
_MENDED = ("bitnet-25", "bitnet-b1.58")
_END_OF_TURN = "<|eot_id|>"
_WRONG_TEMPLATE = "BITNETAssistant"  # stands in the converter's template and in no other
# Source: microsoft/bitnet-b1.58-2B-4T, tokenizer_config.json; microsoft/BitNet, gpu/tokenizer.py.
_BITNET_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


class GgufText(NamedTuple):
    """The text side of a GGUF file.

    Attributes:
        backend: Text to ids; None: the file has no tokenizer.
        bos_token_id: Id that opens a text, or None.
        eos_token_ids: Ids that end a reply, ascending.
        template: Source of the chat template; "": there is none.
        notes: What the file left open or has wrong, each a line for the user.
        pooling: How an embedding model makes one vector of a text; None: it is another model.
    """

    backend: Tokenizer | None
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    template: str
    notes: tuple[str, ...]
    pooling: Pooling | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """What tokenizer_config.json would hold."""
        settings: dict[str, Any] = {"clean_up_tokenization_spaces": False}
        if self.backend is not None and self.bos_token_id is not None:
            settings["bos_token"] = self.backend.id_to_token(self.bos_token_id)
        if self.backend is not None and self.eos_token_ids:
            settings["eos_token"] = self.backend.id_to_token(self.eos_token_ids[-1])
        return settings | ({"chat_template": self.template} if self.template else {})

    @property
    def generation(self) -> dict[str, Any]:
        """What generation_config.json would hold."""
        return {"bos_token_id": self.bos_token_id, "eos_token_id": list(self.eos_token_ids)}


def has_tokenizer(file: GgufFile) -> bool:
    """Whether a file has a tokenizer, sound or not."""
    model = file.metadata.get(_MODEL)
    return model is not None and not (isinstance(model, str) and model in _NO_TOKENIZER)


def read_text(file: GgufFile) -> GgufText:
    """Read the tokenizer, the end tokens and the chat template of a file, and mend them.

    Raises:
        TokenizerError: the tokenizer is damaged, or of a kind that is not known.
        ConfigError: the kind of pooling is not known.
    """
    template = file.metadata.get(_TEMPLATE)
    template = template if isinstance(template, str) else ""
    pooling = _pooling(file)
    if not has_tokenizer(file):
        return GgufText(None, None, (), template, (), pooling)
    found = tokenizer_from_gguf(file.metadata, file.path.name)
    ends, notes = found.eos_token_ids, list(found.notes)
    if str(file.metadata.get("general.architecture")) in _MENDED:
        turn = found.backend.token_to_id(_END_OF_TURN)
        if turn is not None and turn not in ends:
            ends = tuple(sorted({*ends, turn}))
            notes.append(
                f"tokenizer.ggml.eos_token_id names no end of a turn: {_END_OF_TURN} ({turn}) ends"
                " replies too"
            )
        if _WRONG_TEMPLATE in template or (turn is not None and not template):
            template = "" if turn is None else _BITNET_TEMPLATE
            notes.append(
                f"{_TEMPLATE} is not what the model was trained with: "
                + (f"replaced by 'User: ...{_END_OF_TURN}Assistant: '" if template else "left out")
            )
    _mark_as_control(found.backend, {found.bos_token_id, *ends} - {None})
    return GgufText(found.backend, found.bos_token_id, ends, template, tuple(notes), pooling)


def text_files(text: GgufText, config: Mapping[str, Any]) -> dict[str, str]:
    """Name to content of the files that stand beside the weights of a checkpoint.

    Args:
        text: What the metadata say of text.
        config: Content of config.json.
    """
    objects = {
        "config.json": config,
        "generation_config.json": text.generation,
        "tokenizer_config.json": text.settings,
    }
    files = {name: json.dumps(content, indent=2) + "\n" for name, content in objects.items()}
    files |= {} if text.backend is None else {"tokenizer.json": text.backend.to_str()}
    return files | ({} if text.pooling is None else text.pooling.files())


def _pooling(file: GgufFile) -> Pooling | None:
    key = f"{file.metadata.get('general.architecture')}.{POOLING_KEY}"
    kind = file.metadata.get(key, 0)
    if isinstance(kind, int) and kind == 0:
        return None
    if not isinstance(kind, int) or kind not in _POOLINGS:
        raise ConfigError(
            f"{file.path.name}: {key}: expected {', '.join(map(str, _POOLINGS))}, got"
            f" {shown(kind)}: other poolings are not supported"
        )
    return Pooling(_POOLINGS[kind], trained=True)


def _mark_as_control(backend: Tokenizer, token_ids: set[Any]) -> None:
    """BOS and end tokens are found in templates even where the file calls them normal."""
    texts = [backend.id_to_token(token_id) for token_id in sorted(token_ids)]
    backend.add_special_tokens([AddedToken(text, normalized=False) for text in texts])
