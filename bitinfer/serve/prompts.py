"""From a conversation as OpenAI's API writes it to a prompt for the model."""

from __future__ import annotations

from typing import Any

import msgspec

from bitinfer.serve.problems import ApiError, invalid
from bitinfer.serve.schemas import ChatMessage, ChatRequest
from bitinfer.serve.service import Prompt, Service
from bitinfer.serve.tools import ToolFormat, arguments_of
from bitinfer.thinking import opens_thinking

# What a client may set in a template; other names could stand for something of ours.
TEMPLATE_VARIABLES = ("enable_thinking", "reasoning_effort", "thinking", "thinking_budget")


def chat_prompt(service: Service, body: ChatRequest, tool_format: ToolFormat) -> Prompt:
    """Render the conversation and make ids of it.

    Raises:
        ApiError: the model cannot chat, or not with tools, or a variable is not allowed.
        TokenizerError: the template refuses the messages.
        PromptError: the prompt does not fit the context.
    """
    model = service.model
    if not model.has_chat_template:
        raise ApiError(
            400,
            "messages: the model has no chat template: use /v1/completions",
            "no_chat_template",
            "messages",
        )
    given: dict[str, Any] = {}
    for name, value in (body.chat_template_kwargs or {}).items():
        if name not in TEMPLATE_VARIABLES:
            known = ", ".join(TEMPLATE_VARIABLES)
            raise invalid(f"chat_template_kwargs: expected one of {known}, got {name}")
        given[name] = value
    if body.tools and body.tool_choice != "none":
        if not tool_format.known:
            raise ApiError(
                400,
                "tools: the model's chat template knows of none: leave them out",
                "tools_not_supported",
                "tools",
            )
        given["tools"] = [msgspec.to_builtins(tool) for tool in body.tools]
    messages = [_message(message) for message in body.messages]
    service.check_length((message["content"] for message in messages), "messages")
    token_ids = model.encode_chat(messages, given)
    return service.prompt(token_ids, opens_thinking(model.tokenizer.decode, token_ids))


def _message(message: ChatMessage) -> dict[str, Any]:
    """A message as templates know it."""
    content = message.content or ""
    if isinstance(content, list):
        content = "\n".join(part.text for part in content)
    role = "system" if message.role == "developer" else message.role
    found: dict[str, Any] = {"role": role, "content": content}
    for name in ("name", "tool_call_id", "reasoning_content"):
        if (value := getattr(message, name)) is not None:
            found[name] = value
    if message.tool_calls:
        found["tool_calls"] = [
            {
                "type": "function",
                "id": call.id,
                "function": {
                    "name": call.function.name,
                    "arguments": arguments_of(call.function.arguments),
                },
            }
            for call in message.tool_calls
        ]
    return found
