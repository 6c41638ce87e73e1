"""Grammars, regular expressions and JSON schemas with the embedded model's own tokens."""

from __future__ import annotations

import json
import re
import shutil
import sys

import jsonschema
import numpy as np
import pytest
from tiny_tokenizers import SENTENCE_PIECE

import bitinfer
from bitinfer.errors import GrammarError
from bitinfer.grammar import GrammarCompiler
from bitinfer.model import Model
from bitinfer.tokenizer import Tokenizer

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "blue"]}, "maxItems": 2},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model():
    with Model.load("tales-14m", num_threads=1) as loaded:
        yield loaded


@pytest.mark.parametrize("temperature", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_text_follows_the_json_schema_and_the_model_ends_it(model, temperature, seed) -> None:
    done = model.generate(
        "There was a girl.",
        json_schema=PERSON,
        temperature=temperature,
        seed=seed,
        max_tokens=250,
    )
    jsonschema.validate(json.loads(done.text), PERSON)
    assert done.finish_reason == "stop"
    assert done.token_ids[-1] in model.tokenizer.eos_token_ids


def test_schema_may_be_a_text(model) -> None:
    schema = json.dumps({"type": "array", "items": {"type": "boolean"}, "maxItems": 3})
    done = model.generate("The", json_schema=schema, temperature=2.0, seed=1, max_tokens=90)
    assert all(isinstance(value, bool) for value in json.loads(done.text))


@pytest.mark.parametrize("seed", range(5))
def test_text_matches_the_regex_from_end_to_end(model, seed) -> None:
    pattern = r"[0-9]{3}-[a-zä]{2,4}( und so)?"
    done = model.generate("The", regex=pattern, temperature=3.0, seed=seed)
    assert re.fullmatch(pattern, done.text)
    assert done.finish_reason == "stop"


def test_text_follows_the_lark_grammar(model) -> None:
    grammar = 'start: "sum(" NUMBER ("," NUMBER)~2 ")"\nNUMBER: /[0-9]{1,2}/'
    for seed in range(4):
        done = model.generate("The", grammar=grammar, temperature=3.0, seed=seed)
        assert re.fullmatch(r"sum\(\d{1,2}(,\d{1,2}){2}\)", done.text)


def test_end_token_is_forced_when_the_grammar_is_complete(model) -> None:
    # The bias wants "s" everywhere and never an end: "yes" must end nevertheless.
    wish = {model.tokenizer.encode("s")[-1]: 100.0, 2: -100.0, 3: -100.0}
    done = model.generate("The", grammar='start: "yes"', logit_bias=wish, max_tokens=50)
    assert (done.text, done.finish_reason) == ("yes", "stop")


def test_end_token_is_forbidden_until_the_grammar_is_complete(model) -> None:
    done = model.generate("The", regex="a{5}", logit_bias={2: 100.0, 3: 100.0})
    assert done.text == "aaaaa"


def test_each_completion_has_a_grammar_of_its_own(model) -> None:
    many = model.generate_n("The", 4, regex="[a-z]{1,9}", temperature=3.0, seed=1)
    assert all(re.fullmatch("[a-z]{1,9}", done.text) for done in many)
    assert len({done.text for done in many}) > 1


def test_max_tokens_may_cut_the_text(model) -> None:
    done = model.generate("The", json_schema=PERSON, max_tokens=4)
    assert done.finish_reason == "length"


def test_mask_is_the_grammars_token_by_token(model) -> None:
    constraint = GrammarCompiler(model.tokenizer).compile("regex", "ab|ac")
    words = [model.tokenizer.decode([i]) for i in range(4096)]

    def allowed() -> set[str]:
        logits = np.zeros(4096, np.float32)
        constraint.forbid(logits)
        assert set(logits) == {0, -np.inf}
        return {words[i] for i in np.flatnonzero(logits == 0)}

    assert allowed() == {"a", "ab", "ac"} & {*words}
    constraint.accept(words.index("a"))
    assert allowed() == {"b", "c"}
    constraint.accept(words.index("c"))
    assert allowed() == {""}  # the end tokens


@pytest.mark.parametrize("seed", range(3))
def test_bytes_of_a_byte_fallback_vocabulary_are_joined_to_characters(seed) -> None:
    constraint = GrammarCompiler(SENTENCE_PIECE).compile("regex", "ä中[ö-ü]a( or)?")
    rng, ids = np.random.default_rng(seed), SENTENCE_PIECE.encode("a")
    while True:
        logits = rng.normal(0, 1, SENTENCE_PIECE.vocab_size).astype(np.float32)
        constraint.forbid(logits)
        ids.append(int(np.argmax(logits)))
        constraint.accept(ids[-1])
        if ids[-1] in SENTENCE_PIECE.eos_token_ids:
            break
    assert re.fullmatch("aä中[ö-ü]a( or)?", SENTENCE_PIECE.decode(ids))


def test_tokens_of_a_rendered_chat_do_not_disturb_the_grammar(model) -> None:
    messages = [{"role": "user", "content": "What color is the sky?"}]
    model.chat(messages, max_tokens=1)  # the tokenizer now knows stand-ins
    backend = json.loads(GrammarCompiler(model.tokenizer)._tokenizer.to_json())
    assert max(token["id"] for token in backend["added_tokens"]) < 4096
    done = model.chat(messages, regex="(blue|red)")
    assert done.text in ("blue", "red")


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("grammar", 'start: "a" b', 'line 1, column 8: unknown name: "b"'),
        ("grammar", "start: X\nX: /[/", "line 2, column 4: invalid regex"),
        ("grammar", 'start: "a', "line 1, column 10: lexer error"),
        ("grammar", "", "empty grammar"),
        ("grammar", 3, "expected a text, got 3"),
        ("regex", "a(b", "column 2: unclosed group"),
        ("regex", "ab(?=c)", "column 3: look-around"),
        ("regex", ["a"], "expected a text, got ['a']"),
        ("json_schema", '{\n"type":', "line 2, column 8: expected JSON: expecting value"),
        ("json_schema", "[" * 100_000, "expected JSON, got a nest too deep"),
        ("json_schema", "[]", "expected an object, got []"),
        ("json_schema", {"type": "objec"}, "$.type: invalid type: objec"),
        ("json_schema", {"$ref": "#/no"}, "$.$ref: pointer '/no' does not exist"),
        ("json_schema", {"x": {1}}, "expected what JSON can say: Object of type set"),
        (
            "json_schema",
            {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "strng"}}},
            "$.properties.b.type: invalid type: strng",
        ),
        (
            "json_schema",
            {"anyOf": [{"type": "string"}, {"pattern": "x(", "type": "string"}]},
            "$.anyOf[1].pattern: column 2 of 'x(': unclosed group",
        ),
        ("json_schema", {"items": {"uniqueItems": True}}, "$.items.uniqueItems: unimplemented"),
    ],
)
def test_error_says_where(model, kind, value, said) -> None:
    with pytest.raises(GrammarError, match=f"^{kind}: ") as caught:
        model.generate("The", **{kind: value})
    text = str(caught.value)
    assert said in text
    assert "\n" not in text


def test_schema_that_holds_itself_is_refused(model) -> None:
    schema: dict = {"type": "object"}
    schema["properties"] = {"a": schema}
    with pytest.raises(GrammarError, match="expected what JSON can say: Circular reference"):
        model.generate("The", json_schema=schema)


def test_grammar_that_grows_too_complex_is_an_error_and_no_hang(model) -> None:
    with pytest.raises(GrammarError, match=r"^regex: .*too many expressions constructed$"):
        model.generate("The", regex="a{2000000}", max_tokens=5)
    with pytest.raises(GrammarError, match="expected at most 262144 characters, got 300000"):
        model.generate("The", grammar="a" * 300_000)
    with pytest.raises(GrammarError, match="expected at most 262144 characters"):
        model.generate("The", json_schema={"enum": ["a" * 300_000]})


def test_without_llguidance_the_mend_is_named(model, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(GrammarError, match=r"regex: needs llguidance: .*bitinfer\[grammar\]"):
        model.generate("The", regex="a")


def test_model_without_an_end_token_is_refused(tmp_path) -> None:
    folder = shutil.copytree(bitinfer.default_model(), tmp_path / "model")
    backend = Tokenizer.load(folder, vocab_size=4096)._backend
    with pytest.raises(GrammarError, match="no end token"):
        GrammarCompiler(Tokenizer(backend)).compile("regex", "a")
