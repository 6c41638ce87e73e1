"""From a request's fields to the options of a generation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bitinfer.generate import Completion
from bitinfer.sampling import SETTINGS
from bitinfer.serve import limits
from bitinfer.serve.problems import invalid
from bitinfer.serve.schemas import (
    ChatRequest,
    Function,
    Generation,
    JsonFormat,
    NamedTool,
    SchemaFormat,
)
from bitinfer.serve.tools import ToolFormat

_ANY_OBJECT = {"type": "object"}


def generation_options(body: Generation) -> dict[str, Any]:
    """What all generations have: sampling, stops, grammar, limit.

    Raises:
        ApiError: a token id in ``logit_bias`` is no number.
    """
    options = {name: getattr(body, name) for name in SETTINGS}
    if body.logit_bias is not None:
        options["logit_bias"] = {token_id(key): bias for key, bias in body.logit_bias.items()}
    options |= {"stop": body.stop, "regex": body.regex, "grammar": body.grammar}
    return {**options, "max_tokens": body.max_tokens}


def token_id(text: str) -> int:
    """A token id that is a key of a JSON object.

    Raises:
        ApiError: it is none.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise invalid(f"logit_bias: expected token ids as keys, got {text}")
    return int(text)


def chat_options(body: ChatRequest, tool_format: ToolFormat) -> dict[str, Any]:
    """The options of a chat request.

    Raises:
        ApiError: two of them exclude each other, or a schema is too long.
    """
    options = generation_options(body)
    if body.max_completion_tokens is not None:
        options["max_tokens"] = body.max_completion_tokens
    if body.logprobs:
        options["logprobs"] = body.top_logprobs or 0
    elif body.top_logprobs:
        raise invalid("top_logprobs: expected logprobs to be true too")
    form = body.response_format
    if isinstance(form, JsonFormat):
        options["json_schema"] = _ANY_OBJECT
    elif isinstance(form, SchemaFormat):
        options["json_schema"] = form.json_schema.schema
    if functions := must_call(body):
        if isinstance(form, JsonFormat | SchemaFormat) or body.regex or body.grammar:
            raise invalid("tool_choice: expected no other format beside a forced call")
        options["grammar"] = tool_format.grammar(functions)
    for kind in ("json_schema", "grammar"):
        length = len(json.dumps(options.get(kind) or ""))
        if length > limits.MOST_GRAMMAR_CHARS:
            most = limits.MOST_GRAMMAR_CHARS
            raise invalid(f"{kind}: expected at most {most} characters, got {length}")
    return options


def must_call(body: ChatRequest) -> Sequence[Function]:
    """The functions of which one must be called; none: the model is free.

    Raises:
        ApiError: ``tool_choice`` wants what ``tools`` lacks.
    """
    functions = [tool.function for tool in body.tools or ()]
    choice = body.tool_choice
    if isinstance(choice, NamedTool):
        functions = [f for f in functions if f.name == choice.function.name]
    elif choice != "required":
        return ()
    if not functions:
        wanted = choice.function.name if isinstance(choice, NamedTool) else "a tool"
        raise invalid(f"tool_choice: expected {wanted} to be among the tools")
    return functions


def usage(completions: Sequence[Completion], prompts: int = 1) -> dict[str, Any]:
    """OpenAI's count of tokens; a prompt counts once, however many replies it has."""
    firsts = [done.usage for done in completions[:: len(completions) // prompts]]
    prompt = sum(first.prompt_tokens for first in firsts)
    made = sum(completion.usage.completion_tokens for completion in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": sum(first.cached_tokens for first in firsts)},
    }
