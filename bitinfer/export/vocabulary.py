"""The tokenizer of a model as GGUF metadata, with the ids that open and end a text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitinfer.formats.gguf_tokenizer import PREFIX
from bitinfer.formats.gguf_vocabulary import vocabulary_metadata
from bitinfer.formats.gguf_writer import Value
from bitinfer.model_text import ModelText
from bitinfer.tokenizer import END_OF_TURN


def tokenizer_metadata(model: Path, spec: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    """Keys "tokenizer.*" of a model folder or file, and notes on what they leave out.

    Args:
        model: Folder or GGUF file.
        spec: The decoder's spec.

    Raises:
        TokenizerError: the tokenizer's files cannot be used.
        ExportError: GGUF cannot express the tokenizer.
    """
    text = ModelText(model)
    tokenizer = text.tokenizer(spec)
    content = json.loads(tokenizer.to_json())
    fields = vocabulary_metadata(content, spec["vocab_size"], str(model))
    bos, names = tokenizer.bos_token_id, tokenizer.vocabulary
    fields[f"{PREFIX}add_bos_token"] = tokenizer.encode("", add_special_tokens=True) != []
    if bos is not None:
        fields[f"{PREFIX}bos_token_id"] = bos
    # The end of a whole text, then that of a turn, which is what a chat needs to stop.
    ends = sorted(
        tokenizer.eos_token_ids,
        key=lambda i: (names[i] != tokenizer.eos_token, names[i] not in END_OF_TURN),
    )
    for key, token_id in zip(("eos_token_id", "eot_token_id"), ends, strict=False):
        fields[PREFIX + key] = token_id
    if text.chat_template is not None:
        fields["tokenizer.chat_template"] = text.chat_template.source
    left = ", ".join(names[i] for i in ends[2:])
    return fields, [f"GGUF names two end tokens, and not {left}"] if left else []
