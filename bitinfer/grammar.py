"""What a reply must match: a Lark grammar, a regular expression or a JSON schema, by llguidance.

The grammar runs on the model's own tokens: before each step it tells which may come next. When it
is complete and allows nothing more, only an end token may. Needs the extra ``grammar``.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bitinfer.errors import GrammarError
from bitinfer.json_file import shown
from bitinfer.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

KINDS = ("grammar", "regex", "json_schema")  # the options that give one

# For each byte of a mask what is added to eight logits; ten times as fast as to index by the bits.
_ADDED = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little"),
    np.float32(0),
    np.float32(-np.inf),
)

_MOST_CHARS = 1 << 18  # a longer grammar could take many seconds to read
_MOST_TRIES = 300  # parts of a schema that are left out in search of the faulty one
_SEARCH_S = 1.0  # how long that may take
# Between JSON's tokens: nothing, a blank, or a new line with its indentation, so that a weak model
# cannot go on with blanks for ever.
_WHITE_SPACE = r"(\x20|\x0A[\x20\x09]{0,24})?"


class GrammarCompiler:
    """Makes constraints for one tokenizer; safe to share between threads."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        self._prepared: LLTokenizer | None = None  # takes a while for a large vocabulary

    def compile(self, kind: str, value: str | Mapping[str, Any]) -> GrammarConstraint:
        """A constraint at its beginning.

        Args:
            kind: One of ``KINDS``: a Lark grammar as llguidance knows it, a regular expression (of
                Rust's regex crate, matching the whole reply), or a JSON schema.
            value: Its text; a schema may also be a dict.

        Raises:
            GrammarError: llguidance is not installed, or the value is in error; says where.
        """
        try:
            from llguidance import LLMatcher
        except ImportError:
            raise GrammarError(
                f"{kind}: needs llguidance: install it with pip install 'bitinfer[grammar]'"
            ) from None
        if isinstance(value, str):
            _check_length(value, kind)
        prepared = self._prepare()

        def complaint(text: str) -> str:
            try:
                found = LLMatcher.validate_grammar_with_warnings(text, prepared)
            except BaseException as cause:  # a panic of the library derives from BaseException
                if isinstance(cause, KeyboardInterrupt | SystemExit):
                    raise
                return str(cause)
            return found[1][0] if found[0] else ""

        if kind == "json_schema":
            grammar = _from_schema(value, complaint)
        elif not isinstance(value, str):
            raise GrammarError(f"{kind}: expected a text, got {shown(repr(value))}")
        elif kind == "regex":
            grammar = LLMatcher.grammar_from_regex(value)
        else:
            grammar = LLMatcher.grammar_from_lark(value)
        if problem := complaint(grammar):
            raise GrammarError(f"{kind}: {_place(problem, kind)}")
        return GrammarConstraint(LLMatcher(prepared, grammar, log_level=0), kind)

    def _prepare(self) -> LLTokenizer:
        from llguidance import LLTokenizer

        tokenizer = self._tokenizer
        with self._lock:
            if self._prepared is None:
                if not tokenizer.eos_token_ids:
                    raise GrammarError(
                        "grammar: the model has no end token, so a reply could not end: name one "
                        "in generation_config.json (eos_token_id)"
                    )
                self._prepared = LLTokenizer(
                    tokenizer.to_json(),
                    n_vocab=tokenizer.vocab_size,
                    eos_token=list(tokenizer.eos_token_ids),
                )
            return self._prepared


class GrammarConstraint:
    """Where a reply stands in its grammar; one per generation."""

    def __init__(self, matcher: LLMatcher, kind: str) -> None:
        """Begin with ``matcher``; errors name ``kind``."""
        self._matcher = matcher
        self._kind = kind

    def forbid(self, logits: NDArray[np.float32]) -> None:
        """Set the logits of all tokens that the grammar does not allow next to -inf.

        Raises:
            GrammarError: the grammar grew too complex on the way.
        """
        packed = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        self._check()
        logits += _ADDED.take(packed, axis=0).reshape(-1)[: len(logits)]

    def accept(self, token_id: int) -> None:
        """Take the token that was chosen."""
        self._matcher.consume_token(token_id)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"{self._kind}: {_one_line(self._matcher.get_error())}")


def _from_schema(value: str | Mapping[str, Any], complaint: Callable[[str], str]) -> str:
    """The grammar of a JSON schema; an error names the keyword that is at fault."""
    from llguidance import LLMatcher

    if isinstance(value, str):
        try:
            schema: Any = json.loads(value)
        except json.JSONDecodeError as cause:
            raise GrammarError(
                f"json_schema: line {cause.lineno}, column {cause.colno}: expected JSON: "
                f"{cause.msg.lower()}"
            ) from None
        except RecursionError:
            raise GrammarError("json_schema: expected JSON, got a nest too deep") from None
    else:
        schema = value
    if not isinstance(schema, Mapping):
        raise GrammarError(f"json_schema: expected an object, got {shown(repr(schema))}")

    try:
        text = json.dumps(schema)
    except (TypeError, ValueError, RecursionError) as cause:
        raise GrammarError(f"json_schema: expected what JSON can say: {cause}") from None
    _check_length(text, "json_schema")

    def grammar(text: str) -> str:
        return LLMatcher.grammar_from_json_schema(
            text, overrides={"whitespace_pattern": _WHITE_SPACE}
        )

    if problem := complaint(grammar(text)):
        place = _faulty_part(schema, lambda part: not complaint(grammar(json.dumps(part))))
        raise GrammarError(f"json_schema: {place}: {_place(problem, 'json_schema')}")
    return grammar(text)


def _faulty_part(schema: Any, accepted: Callable[[Any], bool]) -> str:
    """Path, such as ``$.properties.age.type``, of the smallest part that is not accepted."""
    place, tries, end_s = "$", 0, time.monotonic() + _SEARCH_S
    here: list[str | int] = []
    while True:
        for key in _keys(_at(schema, here)):
            tries += 1
            if tries > _MOST_TRIES or time.monotonic() > end_s:
                return place
            if accepted(_without(schema, [*here, key])):
                here.append(key)
                place += f"[{key}]" if isinstance(key, int) else f".{key}"
                break
        else:
            return place


def _keys(part: Any) -> Iterator[str | int]:
    if isinstance(part, Mapping):
        yield from part
    elif isinstance(part, list | tuple):
        yield from range(len(part))


def _at(part: Any, path: list[str | int]) -> Any:
    for key in path:
        part = part[key]
    return part


def _without(part: Any, path: list[str | int]) -> Any:
    """A copy that lacks what lies at ``path``."""
    if isinstance(part, Mapping):
        rest = {key: value for key, value in part.items() if key != path[0]}
        return {**part, path[0]: _without(part[path[0]], path[1:])} if path[1:] else rest
    index = int(path[0])
    inner = [_without(part[index], path[1:])] if path[1:] else []
    return [*part[:index], *inner, *part[index + 1 :]]


def _place(problem: str, kind: str) -> str:
    """A message of llguidance in one line: "at 2(4): ..." as "line 2, column 4: ..."."""
    caret = re.search(r"regex parse error:\n    (.*)\n    ( *)\^+\nerror: (.*)", problem)
    if caret and kind != "grammar":
        column = f"column {len(caret[2]) + 1} of {caret[1]!r}: " if kind != "regex" else ""
        column = column or f"column {len(caret[2]) + 1}: "
        return column + caret[3]
    found = re.match(r"(?:at )?(\d+)\((\d+)\): (.*)", problem, re.DOTALL)
    if found is None:
        return _one_line(problem)
    text = found[3].split("\n")[0].removesuffix(" regex parse error:")
    if caret:
        text += f" {caret[3]}"
    return f"line {found[1]}, column {found[2]}: {_one_line(text)}"


def _one_line(text: str) -> str:
    """The message without the library's inner state."""
    text = " ".join(re.split("<state>|<backtrace>", text)[0].split())
    return text[:1].lower() + text[1:300]


def _check_length(text: str, kind: str) -> None:
    if len(text) > _MOST_CHARS:
        raise GrammarError(f"{kind}: expected at most {_MOST_CHARS} characters, got {len(text)}")
