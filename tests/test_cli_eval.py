"""``bitinfer eval``: tables, JSON, and what is refused in one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from test_cli import assert_one_line_error, run_inside

import bitinfer
from bitinfer.evaluate import perplexity
from bitinfer.model import Model

TEXT = "Once upon a time, there was a little girl named Lily.\n"
QUESTIONS = [
    {"prompt": "Once upon a", "choices": ["time", "lime"], "answer": 0},
    {"prompt": "What color is the sky?", "choices": ["girl girl", "Blue."], "answer": "girl girl"},
]
LABELLED = [
    {"text": "There was a girl named", "label": "girl"},
    {"text": "There was a boy named", "label": "boy"},
    {"text": "A princess and a queen, two girls", "label": "girl"},
]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    (tmp_path / "docs.txt").write_text(f"<s>{TEXT}</s>\n<s>{TEXT}</s>\n")
    for name, rows in (("questions", QUESTIONS), ("labelled", LABELLED)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    return tmp_path


def test_perplexity_is_printed_as_a_table(files: Path) -> None:
    done = run_inside("eval", "perplexity", files / "text.txt", "--window", 8, "--stride", 2)
    assert (done.returncode, done.stderr) == (0, "")
    with Model.load(bitinfer.default_model()) as model:
        found = perplexity(model, TEXT, window=8, stride=2)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"tales-14m: text.txt, {found.tokens} tokens, 54 bytes, ")
    assert lines[1] == "1 text, window 8, stride 2"
    assert lines[3].split() == [
        *("per", "token", f"{found.nats_per_token:.4f}", f"{found.perplexity:.4g}")
    ]
    assert lines[4].split()[2:] == [f"{found.nats_per_byte:.4f}", f"{found.byte_perplexity:.4g}"]
    assert all(len(line) <= 80 for line in lines)


def test_perplexity_as_json_has_the_facts_of_the_run(files: Path) -> None:
    done = run_inside("eval", "perplexity", files / "docs.txt", "--documents", "--json", "-t", 1)
    facts = json.loads(done.stdout)
    assert (facts["task"], facts["texts"], facts["documents"]) == ("perplexity", 2, True)
    assert facts["bytes"] == 2 * len(TEXT)
    assert facts["model"]["name"] == "tales-14m"
    assert (facts["model"]["threads"], facts["model"]["head"]) == (1, "int8")
    assert {"commit", "cpu", "date", "seconds", "sha256", "window", "stride"} <= facts.keys()
    assert 1 < facts["perplexity"] < 1000


def test_choices_are_counted(files: Path) -> None:
    done = run_inside("eval", "choice", files / "questions.jsonl")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("tales-14m: questions.jsonl, 2 questions, ")
    assert lines[2].split()[-3:-1] == ["1", "0.5000"]
    assert lines[4].split() == ["by", "chance", "0.5000"]
    facts = json.loads(run_inside("eval", "choice", files / "questions.jsonl", "--json").stdout)
    assert (facts["questions"], facts["correct"], facts["accuracy"]) == (2, 1, 0.5)
    assert facts["separator"] == " "


def test_classes_are_confused_in_a_table(files: Path) -> None:
    arguments = ["eval", "classify", files / "labelled.jsonl"]
    words = ["--verbalizer", "girl=Lily", "--verbalizer", "boy=Tim"]
    done = run_inside(*arguments, *words)
    lines = done.stdout.splitlines()
    assert lines[-3].split() == ["label", "→", "girl", "→", "boy"]
    facts = json.loads(run_inside(*arguments, *words, "--json").stdout)
    assert facts["labels"] == ["girl", "boy"]
    assert [row.split() for row in lines[-2:]] == [
        [label, *map(str, row)]
        for label, row in zip(facts["labels"], facts["confusion"], strict=True)
    ]
    table = facts["confusion"]
    assert [sum(row) for row in table] == [2, 1]
    assert table[0][0] + table[1][1] == facts["correct"] >= 2


@pytest.mark.parametrize(
    ("arguments", "parts", "code"),
    [
        (["perplexity", "nowhere.txt"], ["nowhere.txt: file not found"], 1),
        (["perplexity", "empty"], ["empty: expected text, got an empty file"], 1),
        (["perplexity", "bytes"], ["bytes: expected UTF-8 text, got byte 0xff at 1"], 1),
        (["perplexity", "text.txt", "--window", 2000], ["window: expected 1 to 1024"], 1),
        (["perplexity", "text.txt", "--window", 4, "--stride", 5], ["stride: expected 1 to 4"], 1),
        (["choice", "labelled.jsonl"], ['labelled.jsonl, line 1: expected the key "prompt"'], 1),
        (["classify", "labelled.jsonl", "--template", "x"], ["--template: expected {text}"], 2),
        (["classify", "labelled.jsonl", "--verbalizer", "girl"], ["LABEL=WORDS", "'girl'"], 2),
        (
            ["classify", "labelled.jsonl", "--verbalizer", "girl=a", "--verbalizer", "cat=b"],
            ["line 2", "\"label\": expected one of 'girl', 'cat', got 'boy'"],
            1,
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    files: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], parts: list[str], code: int
) -> None:
    (files / "empty").write_bytes(b"")
    (files / "bytes").write_bytes(b"a\xff")
    monkeypatch.chdir(files)
    assert_one_line_error(run_inside("eval", *arguments), *parts, code=code)


def test_the_harness_says_how_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.delitem(sys.modules, "bitinfer.evaluate.harness", raising=False)
    done = run_inside("eval", "harness", "--tasks", "arc_easy")
    assert_one_line_error(done, "lm_eval is missing", "pip install 'bitinfer[eval]'")
