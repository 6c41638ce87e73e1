"""A byte-level BPE tokenizer of a chosen size, trained on the texts of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from bitinfer.errors import TrainingError
from bitinfer.formats.new_folder import new_folder
from bitinfer.text_file import BEGIN, END, read_documents

USER, ASSISTANT = "<|user|>", "<|assistant|>"
_SPECIAL = ("<pad>", BEGIN, END, USER, ASSISTANT)  # ids 0 to 4

# A conversation as it stands in the texts: <s><|user|>...<|assistant|>...</s><|user|>...
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{{{{ '{ASSISTANT}' + message['content'] + eos_token }}}}"
    "{% else %}"
    f"{{{{ '{USER}' + message['content'] }}}}"
    "{% endif %}{% endfor %}"
    f"{{% if add_generation_prompt %}}{{{{ '{ASSISTANT}' }}}}{{% endif %}}"
)


def train_tokenizer(sources: Iterable[Path], vocab_size: int, folder: Path) -> None:
    """Train a tokenizer and write its folder, unless it is there.

    Digits stand alone, so that numbers are spelled; every byte has a token, so that every text can
    be written.

    Args:
        sources: Texts, read as `read_documents` does.
        vocab_size: Tokens, all kinds together.
        folder: To make; its parent must exist.

    Raises:
        DataError: a text is refused.
        TrainingError: it is too small for so many tokens.
        PackedFileError: the folder cannot be written.
    """
    if folder.exists():
        return
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_turns(sources), trainer)
    if (got := backend.get_vocab_size()) != vocab_size:
        raise TrainingError(
            f"vocab_size: expected {vocab_size} tokens, got a text that makes only {got}: choose"
            " fewer, or take more text"
        )
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": _SPECIAL[0],
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    with new_folder(folder, (), "tokenizer.json") as fresh:
        (fresh / "tokenizer.json").write_text(backend.to_str(pretty=True), encoding="utf-8")
        (fresh / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _turns(sources: Iterable[Path]) -> Iterable[str]:
    """Yield the texts between control tokens."""
    for source in sources:
        for document in read_documents(source):
            text = document.replace(USER, END).replace(ASSISTANT, END)
            yield from filter(None, text.split(END))
