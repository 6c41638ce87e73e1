"""What ``bitinfer generate`` does with a loaded model: one prompt or many, as text or as JSON."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Generator, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from bitinfer.cli.setting import plain, with_token_ids
from bitinfer.cli.text import proper
from bitinfer.errors import BitinferError, ConfigError
from bitinfer.grammar import KINDS
from bitinfer.progress import progress_bar
from bitinfer.runtime import active_isa
from bitinfer.sampling import SETTINGS
from bitinfer.thinking import OPEN, opens_thinking, split_thinking

if TYPE_CHECKING:
    from bitinfer.generate import Completion
    from bitinfer.model import Model

Prompt = str | list[int]

_KINDS = (  # what no one else checks
    ("prompt", str, "a text"),
    ("messages", list, "a list"),
    ("stop", str | list | None, "a text or a list of them"),
)
_NONE: Mapping[str, Any] = {}
_SEED_BITS = 53  # every program that reads JSON keeps such numbers exactly


class Generation:
    """A model, and the options that were given on the command line."""

    def __init__(self, model: Model, options: dict[str, Any]) -> None:
        """Take what is left of the command's options."""
        self._model = model
        self._chat = options.pop("chat")
        self._system = options.pop("system")
        self._count = options.pop("completions") or 1
        self._options = options

    @property
    def count(self) -> int:
        """How many completions are wanted."""
        return self._count

    def prompt_of(self, text: str) -> Prompt:
        """The text, or the token ids of it as a question."""
        if not self._chat:
            return text
        system = [{"role": "system", "content": self._system}] if self._system else []
        return self._model.encode_chat([*system, {"role": "user", "content": text}])

    def stream(self, prompt: Prompt) -> Generator[str, None, None]:
        """One completion in pieces."""
        with self._model.stream(prompt, **self._options) as pieces:
            yield self.opening(prompt)
            yield from pieces

    def opening(self, prompt: Prompt) -> str:
        """The tag of a think-block that the template opened, so that a reply shows it whole."""
        return OPEN + "\n" if self._opens_thinking(prompt) else ""

    def completions(
        self, prompt: Prompt, options: Mapping[str, Any] | None = None
    ) -> list[Completion]:
        """As many as are wanted, with ``options`` or those of the command line."""
        used: Any = self._options if options is None else options
        if self._count == 1:
            return [self._model.generate(prompt, **used)]
        return self._model.generate_n(prompt, self._count, **used)

    def facts(self, prompt: Prompt, more: Mapping[str, Any] = _NONE) -> dict[str, Any]:
        """Completions with all that led to them, as JSON has it.

        A seed is chosen here if there is none, so that the result can be had again.

        Args:
            prompt: From `prompt_of`, or token ids.
            more: Options that beat those of the command line.
        """
        options = self._options | dict(more)
        if any(kind in more for kind in KINDS):  # in place of one of another kind
            options |= {kind: more.get(kind) for kind in KINDS}
        given = {k: v for k, v in options.items() if k in SETTINGS}
        if self._model.sampling.with_options(**given).seed is None:
            options["seed"] = given["seed"] = secrets.randbits(_SEED_BITS)
        done = self.completions(prompt, options)
        texts = [self._completion(completion, prompt) for completion in done]
        return {
            **(texts[0] if self._count == 1 else {"completions": texts}),
            "model": about_model(self._model),
            "settings": plain(
                {
                    **asdict(self._model.sampling.with_options(**given)),
                    "max_tokens": options["max_tokens"] or self._model.max_tokens,
                    "stop": list(options["stop"] or ()),
                    "chat": self._chat,
                }
            ),
        }

    def _opens_thinking(self, prompt: Prompt) -> bool:
        return not isinstance(prompt, str) and opens_thinking(self._model.tokenizer.decode, prompt)

    def _completion(self, completion: Completion, prompt: Prompt) -> dict[str, Any]:
        facts: dict[str, Any] = {"text": completion.text}
        if not isinstance(prompt, str):  # a chat: token ids come from its template
            thinking, answer = split_thinking(completion.text, self._opens_thinking(prompt))
            facts = {"text": answer} | ({"thinking": thinking} if thinking else {})
        facts |= {"finish_reason": completion.finish_reason, "usage": asdict(completion.usage)}
        if completion.logprobs is not None:
            facts["logprobs"] = [
                {
                    **self._token(t.token_id, t.logprob),
                    "top": [self._token(*pair) for pair in t.top],
                }
                for t in completion.logprobs
            ]
        return facts

    def _token(self, token_id: int, logprob: float) -> dict[str, Any]:
        text = self._model.tokenizer.decode([token_id])
        return {"token_id": token_id, "text": text, "logprob": plain(logprob)}

    def line(self, text: str) -> dict[str, Any]:
        """The result for a line of JSON: facts, or an error."""
        asked: dict[str, Any] = {}
        try:
            asked = _read_line(text)
            options = {k: v for k, v in asked.items() if k not in ("id", "prompt", "messages")}
            if "messages" in asked:
                prompt: Prompt = self._model.encode_chat(asked["messages"])
            else:
                prompt = self.prompt_of(proper(asked["prompt"]))
            found = self.facts(prompt, options)
        except (BitinferError, ValueError, TypeError) as error:  # wrong options among them
            found = {"error": " ".join(str(error).split())}
        return ({"id": asked["id"]} if "id" in asked else {}) | found


def about_model(model: Model) -> dict[str, Any]:
    """What made a result, for JSON."""
    engine = model.engine
    return {
        "name": model.path.resolve().name,
        "family": engine.spec["model_type"],
        "packing": engine.packing,
        "head": engine.head,
        "kv_cache": engine.kv_cache,
        "context_length": engine.context_length,
        "isa": active_isa(),
        "threads": engine.num_threads,
    }


def run_batch(generation: Generation, path: Path) -> None:
    """Answer each line of a file in turn; at the end say how many failed.

    Raises:
        click.ClickException: some did.
    """
    done = failed = 0
    show = sys.stderr.isatty() and not sys.stdout.isatty()
    with progress_bar("generate", "prompt", show) as progress:
        for number, text in _lines(path):
            found = generation.line(text)
            failed += "error" in found
            facts = {"line": number, **found}
            click.echo(json.dumps(facts, ensure_ascii=False, allow_nan=False))
            done += 1
            progress(done, 0)
    if failed:
        raise click.ClickException(f"{failed} of {done} prompts failed: see their lines")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbers and texts of the lines that are not blank, as they come."""
    if str(path) == "-":
        source = sys.stdin
        yield from ((n, line) for n, line in enumerate(source, 1) if line.strip())
        return
    with path.open(encoding="utf-8", errors="replace") as source:
        yield from ((n, line) for n, line in enumerate(source, 1) if line.strip())


def _read_line(text: str) -> dict[str, Any]:
    """What a line asks for.

    Raises:
        ConfigError: it is no JSON string or object, or has no prompt.
    """
    try:
        asked = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as cause:
        raise ConfigError(f"expected a JSON string or object, got other text: {cause}") from None
    if isinstance(asked, str):
        return {"prompt": asked}
    if not isinstance(asked, dict):
        raise ConfigError(f"expected a JSON string or object, got {text.strip()[:40]}")
    if ("messages" in asked) == ("prompt" in asked):
        raise ConfigError('expected either "prompt" or "messages"')
    for name, kinds, words in _KINDS:
        if name in asked and not isinstance(asked[name], kinds):
            raise ConfigError(f"{name}: expected {words}, got {json.dumps(asked[name])[:40]}")
    if isinstance(asked.get("stop"), str):
        asked["stop"] = [asked["stop"]]
    if isinstance(asked.get("logit_bias"), dict):
        asked["logit_bias"] = with_token_ids(asked["logit_bias"])
    if "logits_processor" in asked:
        raise ConfigError("logits_processor: a program's function, expected none here")
    return asked


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
