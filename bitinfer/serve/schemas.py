"""The requests of OpenAI's API as types; msgspec refuses what does not fit them.

The sampling fields are made of `SamplingParams`, with its ranges, so that a new one is here too.
Fields that are not named are ignored, as clients send many that mean nothing here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from bitinfer.sampling import SETTINGS
from bitinfer.serve import limits

Text = Annotated[str, Meta(max_length=limits.MOST_BODY_BYTES)]
Stop = Annotated[str, Meta(min_length=1, max_length=limits.MOST_STOP_CHARS)]
Stops = Annotated[list[Stop], Meta(max_length=limits.MOST_STOPS)]
TokenId = Annotated[int, Meta(ge=0, lt=2**31)]
Count = Annotated[int, Meta(ge=1, lt=2**31)]
Replies = Annotated[int, Meta(ge=1, le=limits.MOST_REPLIES)]
TopLogprobs = Annotated[int, Meta(ge=0, le=limits.MOST_TOP_LOGPROBS)]
Pattern = Annotated[str, Meta(min_length=1, max_length=limits.MOST_GRAMMAR_CHARS)]
FreeJson = dict[str, Any]


def _type_of(name: str) -> Any:
    """The type of a sampling field; its range is in SETTINGS."""
    about = SETTINGS[name]
    low, high = about["low"], about["high"]
    if about["kind"] == "bias":
        bias = Annotated[float, Meta(ge=-high, le=high)]
        return Annotated[dict[str, bias], Meta(max_length=limits.MOST_BIASES)]
    if about["kind"] == "int":
        return Annotated[int, Meta(ge=low, le=min(high, 2**63 - 1))]
    return Annotated[float, Meta(ge=low, le=high)]


if TYPE_CHECKING:

    class _Sampling(Struct, kw_only=True):
        logit_bias: dict[str, float] | None = None

else:
    _Sampling = msgspec.defstruct(
        "_Sampling", [(name, _type_of(name) | None, None) for name in SETTINGS], kw_only=True
    )


class StreamOptions(Struct):
    """What a stream tells besides."""

    include_usage: bool = False


class Generation(_Sampling, kw_only=True):
    """What chat and plain completions have in common."""

    model: str | None = None
    n: Replies | None = None
    stop: Stop | Stops | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Count | None = None
    regex: Pattern | None = None
    grammar: Pattern | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None


class TextPart(Struct):
    """A part of a message; there is no other kind."""

    text: Text
    type: Literal["text"]


class FunctionCall(Struct):
    """Which function is called; its arguments are JSON in a text."""

    name: str
    arguments: str


class ToolCall(Struct):
    """A call that the model made before."""

    function: FunctionCall
    id: str = ""
    type: Literal["function"] = "function"


class ChatMessage(Struct):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Text | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: Text | None = None


class Function(Struct, omit_defaults=True):
    """A function that the model may call; its parameters are a JSON schema."""

    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,64}$")]
    description: str = ""
    parameters: FreeJson | None = None


class Tool(Struct):
    """A tool; there is no other kind."""

    function: Function
    type: Literal["function"]


class FunctionName(Struct):
    """The name of one of the tools."""

    name: str


class NamedTool(Struct):
    """The tool that must be called."""

    function: FunctionName
    type: Literal["function"]


class PlainFormat(Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON object."""


class NamedSchema(Struct):
    """A JSON schema."""

    schema: FreeJson
    name: str = "schema"


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    json_schema: NamedSchema


class ChatRequest(Generation, kw_only=True):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1, max_length=limits.MOST_MESSAGES)]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    response_format: PlainFormat | JsonFormat | SchemaFormat | None = None
    tools: Annotated[list[Tool], Meta(max_length=limits.MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    chat_template_kwargs: dict[str, bool | int | float | str] | None = None


class CompletionRequest(Generation, kw_only=True):
    """POST /v1/completions."""

    prompt: Text | list[Text | TokenId | list[TokenId]]
    logprobs: TopLogprobs | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Replies | None = None


class TokenizeRequest(Struct, kw_only=True):
    """POST /tokenize."""

    content: Annotated[str, Meta(max_length=limits.MOST_TOKENIZE_CHARS)]
    model: str | None = None
    add_special: bool = False
    parse_special: bool = False


class DetokenizeRequest(Struct, kw_only=True):
    """POST /detokenize."""

    tokens: list[TokenId]
    model: str | None = None
