"""A model as the user names it on the command line, turned into its folder."""

from __future__ import annotations

from pathlib import Path

from bitinfer.cli.bytes_bar import bytes_bar


def model_folder(model: str | None) -> Path:
    """The folder of ``model`` (None: the embedded one); pulls it at its first use."""
    from bitinfer import default_model
    from bitinfer.model_folder import find_model

    if model is None:
        return default_model()
    with bytes_bar() as report:
        return find_model(model, report)


def text_model_folder(model: str | None) -> Path:
    """`model_folder` of a model that is to read or write text, which needs a tokenizer."""
    from bitinfer.model_text import require_tokenizer

    folder = model_folder(model)
    require_tokenizer(folder)
    return folder
