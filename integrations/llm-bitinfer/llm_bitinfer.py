"""A plugin of the ``llm`` command: models of bitinfer, run in its process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import llm
from llm.parts import StreamEvent
from pydantic import Field

import bitinfer
from bitinfer.hub.inventory import list_models
from bitinfer.thinking import ThinkingSplitter, opens_thinking


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Tell ``llm`` of the embedded model and of those that were pulled."""
    embedded = bitinfer.default_model()
    register(BitinferModel(embedded.name, embedded), aliases=("bitinfer",))
    for kept in list_models():
        if kept.state != "partial":
            name = str(kept.record.name)
            register(BitinferModel(name, name))


class BitinferModel(llm.Model):
    """A model that is loaded at its first prompt and then kept."""

    can_stream = True
    supports_schema = True

    class Options(llm.Options):
        """Settings of a reply; bitinfer checks their ranges."""

        max_tokens: int | None = Field(description="Most tokens of the reply", default=None)
        temperature: float | None = Field(description="0: always the likeliest", default=None)
        top_k: int | None = Field(description="Choose among so many; 0: all", default=None)
        top_p: float | None = Field(description="Choose among the likeliest", default=None)
        min_p: float | None = Field(description="Least share of the likeliest", default=None)
        repetition_penalty: float | None = Field(description="1: none", default=None)
        seed: int | None = Field(description="The same seed gives the same reply", default=None)

    def __init__(self, name: str, path_or_name: str | Path) -> None:
        """Name it ``bitinfer/name``; ``path_or_name`` is what bitinfer loads."""
        self.model_id = f"bitinfer/{name}"
        self._path_or_name = path_or_name
        self._model: bitinfer.Model | None = None

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[StreamEvent]:
        """Reply to a prompt, in pieces."""
        if self._model is None:
            self._model = bitinfer.Model.load(self._path_or_name)
        model = self._model
        options: dict[str, Any] = prompt.options.model_dump(exclude_none=True)
        if prompt.schema:
            options["json_schema"] = prompt.schema
        asked: str | list[int] = prompt.prompt
        opened = False
        if model.has_chat_template:
            asked = model.encode_chat(_messages(prompt, conversation))
            opened = opens_thinking(model.tokenizer.decode, asked)
        thinking = ThinkingSplitter(opened)
        with model.stream(asked, **options) as pieces:
            for piece in pieces:
                for part in [(False, piece)] if prompt.schema else thinking.add(piece):
                    yield _event(*part)
        for part in thinking.finish():
            yield _event(*part)
        usage = pieces.completion.usage
        response.set_usage(input=usage.prompt_tokens, output=usage.completion_tokens)


def _event(thinking: bool, text: str) -> StreamEvent:
    return StreamEvent(type="reasoning" if thinking else "text", chunk=text)


def _messages(prompt: llm.Prompt, conversation: llm.Conversation | None) -> list[dict[str, str]]:
    """The conversation as chat templates know it, with its last instruction before it."""
    system, messages = "", []
    for response in conversation.responses if conversation else ():
        system = response.prompt.system or system
        messages.append({"role": "user", "content": response.prompt.prompt})
        messages.append({"role": "assistant", "content": response.text_or_raise()})
    messages.append({"role": "user", "content": prompt.prompt})
    if system := prompt.system or system:
        messages.insert(0, {"role": "system", "content": system})
    return messages
