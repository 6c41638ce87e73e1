"""The request of /v1/responses as types, and as the request of a chat that it stands for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from bitinfer.serve import limits
from bitinfer.serve.problems import invalid
from bitinfer.serve.schemas import (
    ChatMessage,
    ChatRequest,
    Count,
    FreeJson,
    Function,
    FunctionCall,
    FunctionName,
    JsonFormat,
    NamedSchema,
    NamedTool,
    PlainFormat,
    SchemaFormat,
    Text,
    Tool,
    ToolCall,
)


class InputText(Struct, tag_field="type", tag="input_text"):
    """What a user wrote."""

    text: Text


class OutputText(Struct, tag_field="type", tag="output_text"):
    """What a model wrote before."""

    text: Text


class ReasoningText(Struct, tag_field="type", tag="reasoning_text"):
    """What a model thought before."""

    text: Text


Content = Text | list[InputText | OutputText | ReasoningText] | None


class InputItem(Struct):
    """A message, or an item of an earlier output, or what a function returned."""

    type: Literal["message", "reasoning", "function_call", "function_call_output"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: Content = None
    call_id: str | None = None
    name: str | None = None
    arguments: Text | None = None
    output: Content = None


class FunctionTool(Struct, omit_defaults=True):
    """A function that the model may call; there is no other kind of tool."""

    type: Literal["function"]
    name: Annotated[str, Meta(pattern="^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: FreeJson | None = None
    strict: bool | None = None


class ChosenFunction(Struct):
    """The function that must be called."""

    type: Literal["function"]
    name: str


class FlatSchema(Struct, tag_field="type", tag="json_schema"):
    """JSON of a schema."""

    schema: FreeJson
    name: str = "schema"


class TextOptions(Struct):
    """What form the text has."""

    format: PlainFormat | JsonFormat | FlatSchema | None = None


class Reasoning(Struct):
    """How much a model shall think, if its template knows of it."""

    effort: Annotated[str, Meta(max_length=16)] | None = None


Items = Annotated[list[InputItem], Meta(min_length=1, max_length=limits.MOST_MESSAGES)]


class ResponsesRequest(Struct, kw_only=True):
    """POST /v1/responses."""

    input: Text | Items
    model: str | None = None
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    text: TextOptions = field(default_factory=TextOptions)
    reasoning: Reasoning | None = None
    tools: Annotated[list[FunctionTool], Meta(max_length=limits.MOST_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | ChosenFunction | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None
    previous_response_id: str | None = None
    background: bool | None = None


def chat_request(body: ResponsesRequest) -> ChatRequest:
    """The same request as the chat API has it.

    Raises:
        ApiError: an item lacks what its type needs.
    """
    messages = [ChatMessage("system", body.instructions)] if body.instructions else []
    if isinstance(body.input, str):
        messages.append(ChatMessage("user", body.input))
    else:
        messages += _messages(body.input)
    form: Any = body.text.format
    if isinstance(form, FlatSchema):
        form = SchemaFormat(NamedSchema(form.schema, form.name))
    choice: Any = body.tool_choice
    if isinstance(choice, ChosenFunction):
        choice = NamedTool(FunctionName(choice.name), choice.type)
    effort = body.reasoning.effort if body.reasoning else None
    sampling: dict[str, Any] = {"temperature": body.temperature, "top_p": body.top_p}
    return ChatRequest(
        messages=messages,
        max_tokens=body.max_output_tokens,
        response_format=form,
        tools=[
            Tool(Function(tool.name, tool.description or "", tool.parameters), tool.type)
            for tool in body.tools or ()
        ],
        tool_choice=choice,
        chat_template_kwargs=None
        if effort is None
        else {"enable_thinking": effort != "none", "reasoning_effort": effort},
        **sampling,
    )


def _messages(items: Sequence[InputItem]) -> list[ChatMessage]:
    """Thinking, text and calls of one turn become one message, as templates know it."""
    messages: list[ChatMessage] = []
    for number, item in enumerate(items):
        last = messages[-1] if messages and messages[-1].role == "assistant" else None
        if item.type == "reasoning":
            thought = _text(item.content) or None
            messages.append(ChatMessage("assistant", "", reasoning_content=thought))
        elif item.type == "function_call":
            if last is None:
                messages.append(last := ChatMessage("assistant", ""))
            call = FunctionCall(_needed(item, number, "name"), _needed(item, number, "arguments"))
            one = ToolCall(call, _needed(item, number, "call_id"))
            last.tool_calls = [*(last.tool_calls or ()), one]
        elif item.type == "function_call_output":
            text, call_id = (_needed(item, number, name) for name in ("output", "call_id"))
            messages.append(ChatMessage("tool", _text(text), tool_call_id=call_id))
        else:
            role, text = (_needed(item, number, name) for name in ("role", "content"))
            if role == "assistant" and last is not None and not (last.content or last.tool_calls):
                last.content = _text(text)  # behind its thinking
            else:
                messages.append(ChatMessage(role, _text(text)))
    return messages


def _needed(item: InputItem, number: int, name: str) -> Any:
    """A field of an item that its type needs.

    Raises:
        ApiError: it is not there.
    """
    if (value := getattr(item, name)) is None:
        raise invalid(f"input[{number}].{name}: expected a value in a {item.type}, got none")
    return value


def _text(content: Content) -> str:
    return content if isinstance(content, str) else "\n".join(p.text for p in content or ())
