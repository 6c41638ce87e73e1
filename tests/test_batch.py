"""``bitinfer batch``: each row is answered once, as by the model alone, whatever comes between."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
from msgspec import Raw
from test_cli import ENVIRONMENT, assert_one_line_error, run_inside

from bitinfer import default_model
from bitinfer.batch.journal import Journal
from bitinfer.batch.results import Answer, read_result, write_result
from bitinfer.batch.rows import MOST_LINE_BYTES, Rows, digest_of, json_lines
from bitinfer.batch.run import Progress, partial, run_batch
from bitinfer.cli.batch import Lines, Pace
from bitinfer.errors import BatchError
from bitinfer.model import Model


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model.load(default_model(), num_threads=1) as model:
        yield model


def write(path: Path, *rows: Any) -> Path:
    texts = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{text}\n" for text in texts))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def text_of(result: dict[str, Any]) -> str:
    (choice,) = result["response"]["body"]["choices"]
    return choice["message"]["content"] if "message" in choice else choice["text"]


def mixed_rows(count: int) -> list[dict[str, Any]]:
    """Chats, completions and lines of OpenAI's form, some greedy, of different lengths."""
    rows: list[dict[str, Any]] = []
    for i in range(count):
        question = [{"role": "user", "content": f"Tell me of {i} cats."}]
        body = {"messages": question, "max_completion_tokens": 4 + i % 7, "temperature": i % 3 / 2}
        url = "/v1/chat/completions"
        rows += [
            {"prompt": f"Once there were {i} dogs", "max_tokens": 3 + i % 5},
            {"custom_id": f"q{i}", "method": "POST", "url": url, "body": body},
        ]
    return rows[:count]


def alone(model: Model, number: int, row: dict[str, Any]) -> str:
    """What the model says to a row when it has nothing else to do."""
    if "prompt" in row:
        return model.generate(row["prompt"], max_tokens=row["max_tokens"], seed=number).text
    body = row["body"]
    options = {"max_tokens": body["max_completion_tokens"], "temperature": body["temperature"]}
    return model.chat(body["messages"], seed=number, **options).text


# Kills itself in the midst of writing its ninth answer.
KILLED = """
import os, signal, sys
from bitinfer.batch.journal import Journal
from bitinfer.cli import main

def add(self, line, whole=Journal.add):
    if self.done == 8:
        self._file.write(line[:40])
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(self, line)

Journal.add = add
main(["batch", *sys.argv[1:], "--slots", "4"])
"""


def test_after_kill_9_each_row_is_answered_once_and_as_alone(model: Model, tmp_path: Path) -> None:
    rows = mixed_rows(40)
    source, output = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    command = [sys.executable, "-c", KILLED, str(source), str(output)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    before = partial(output).read_bytes().splitlines()
    assert [read_result(line) is None for line in before] == [True, *[False] * 8, True]

    assert run_batch(model, source, output) == Progress(
        rows=40, resumed=8, done=40, failed=0, tokens=ANY
    )
    results = read(output)
    assert [result["custom_id"] for result in results] == [row.get("custom_id") for row in rows]
    assert [text_of(r) for r in results] == [alone(model, i + 1, r) for i, r in enumerate(rows)]
    assert set(before[1:-1]) <= set(output.read_bytes().splitlines())  # those were not run again
    assert not partial(output).exists()


def test_what_is_done_is_not_run_again(model: Model, tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", {"prompt": "The cat", "max_tokens": 2}, "", {"x": 1})
    output = tmp_path / "out.jsonl"
    assert run_batch(model, source, output).resumed == 0
    before = output.read_bytes()
    again = run_batch(model, source, output)
    assert again == Progress(rows=2, resumed=2, done=2, failed=1)
    assert output.read_bytes() == before
    write(source, {"prompt": "The dog", "max_tokens": 2}, "", {"x": 1})
    with pytest.raises(BatchError, match="it is there already, and not the answer to"):
        run_batch(model, source, output)


def test_what_is_wrong_with_a_row_stands_in_its_line(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    cases: list[tuple[Any, str]] = [
        ("{broken", "expected JSON"),
        ("[" * 5000, "row: expected JSON"),
        ("7", "expected an object, got int"),
        ({"body": 3}, "body: expected an object"),
        ({"text": "x"}, "expected prompt, messages, or url and body"),
        ({"custom_id": 5, "prompt": "x"}, "custom_id: expected a text"),
        ({"url": "/etc/passwd", "body": {}}, "url: expected one of /v1/chat/completions"),
        ({"method": "GET", "prompt": "x"}, "method: expected POST, got GET"),
        ({**chat, "stream": True}, "stream: expected false"),
        ({"prompt": "x" * MOST_LINE_BYTES}, f"at most {MOST_LINE_BYTES} bytes"),
        ({**chat, "temperature": -1}, "temperature: expected"),
        ({**chat, "model": "gpt"}, "model: expected tales-14m"),
        ({"prompt": ["x"] * 17}, "prompt: expected at most 16"),
    ]
    rows = [{"prompt": "The cat", "max_tokens": 1}, *(row for row, _ in cases)]
    source, output = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    done = run_inside("batch", source, output)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: 13 of 14 rows failed: {output} says why"
    first, *failed = read(output)
    assert first["response"]["status_code"] == 200
    for result, (_, expected) in zip(failed, cases, strict=True):
        error = result["error"] or result["response"]["body"]["error"]
        assert expected in error["message"], error
        assert error["code"]
    assert [result["id"].split("_")[2] for result in failed] == [str(n) for n in range(2, 15)]


def test_defaults_are_for_rows_that_lack_them(model: Model, tmp_path: Path) -> None:
    question = [{"role": "user", "content": "What color is the sky?"}]
    rows = [{"messages": question}, {"messages": question, "max_tokens": 2, "temperature": None}]
    source, output = write(tmp_path / "in.jsonl", *rows), tmp_path / "out.jsonl"
    run_batch(model, source, output, defaults={"max_tokens": 5, "temperature": 0, "top_k": None})
    expected = [model.chat(question, temperature=0, max_tokens=n).text for n in (5, 2)]
    assert [text_of(result) for result in read(output)] == expected


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_rows_are_not_blamed_when_the_model_has_ended(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "in.jsonl", {"prompt": "The cat"}, {"prompt": "The dog"})
    output = tmp_path / "out.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr("bitinfer.serve.scheduler.Scheduler.plan", None)
        with pytest.raises(BatchError, match="the model does not run any more"):
            run_batch(model, source, output)
    assert run_batch(model, source, output) == Progress(
        rows=2, resumed=0, done=2, failed=0, tokens=ANY
    )


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    source = write(tmp_path / "in.jsonl", *({"prompt": str(i)} for i in range(5)))
    return Rows("in.jsonl", lambda: json_lines(source))


def result(rows: Rows, number: int) -> bytes:
    digest = {n: digest_of(line) for n, line in rows}[number]
    return write_result(number, digest, None, Answer(200, "r", Raw(b"{}")), None)


def journal(rows: Rows, tmp_path: Path, **settings: str) -> Journal:
    return Journal(tmp_path / "out.partial", rows, {"model": "m", **settings})


def test_a_journal_that_is_cut_anywhere_keeps_its_whole_lines(rows: Rows, tmp_path: Path) -> None:
    first = journal(rows, tmp_path)
    ends = [first.path.stat().st_size]
    for number in (4, 2):
        first.add(result(rows, number))
        ends.append(first.path.stat().st_size)
    first.close()
    whole = first.path.read_bytes()
    for length in (0, 1, *range(ends[0] - 1, len(whole) + 1)):
        first.path.write_bytes(whole[:length])
        again = journal(rows, tmp_path)
        assert again.done == sum(end <= length for end in ends[1:])
        numbers = [number for number in (4, 2) if number not in again]
        for number in numbers:
            again.add(result(rows, number))
        assert list(again.in_order()) == [result(rows, n) + b"\n" for n in (2, 4)]
        again.close()


def test_what_a_crash_of_the_machine_left_is_cut_off(rows: Rows, tmp_path: Path) -> None:
    first = journal(rows, tmp_path)
    first.add(result(rows, 3))
    first.close()
    with first.path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n" + result(rows, 1) + b"\n")
    again = journal(rows, tmp_path)
    assert [number for number in range(6) if number in again] == [3]
    again.close()


def test_a_batch_that_is_not_the_same_is_refused(rows: Rows, tmp_path: Path) -> None:
    first = journal(rows, tmp_path)
    with pytest.raises(BatchError, match="another process writes it"):
        journal(rows, tmp_path)
    first.add(result(rows, 3))
    first.close()
    with pytest.raises(BatchError, match="begun with another defaults"):
        journal(rows, tmp_path, defaults="{}")
    source = write(tmp_path / "in.jsonl", *({"prompt": str(i)} for i in (0, 1, 7, 3, 4, 5, 6)))
    changed = Rows("in.jsonl", lambda: json_lines(source))
    with pytest.raises(BatchError, match=r"in\.jsonl, row 3: it changed since it was answered"):
        journal(changed, tmp_path)
    with pytest.raises(BatchError, match=r"row 3: it changed while the batch ran"):
        list(rows)
    first.path.write_text('{"my": "file"}\n')
    with pytest.raises(BatchError, match="expected a batch that was cut off"):
        journal(rows, tmp_path)
    assert first.path.read_text() == '{"my": "file"}\n'


def test_what_is_wrong_with_the_files_is_one_line(tmp_path: Path) -> None:
    twice = {"custom_id": "a", "prompt": "x"}
    source = write(tmp_path / "in.jsonl", twice, {"prompt": "y"}, twice)
    output = tmp_path / "out.jsonl"
    assert_one_line_error(run_inside("batch", source, output), "row 3", "that of row 1: a")
    assert_one_line_error(run_inside("batch", source, source), "another file", code=2)
    assert_one_line_error(run_inside("batch", tmp_path / "none", output), "does not exist", code=2)
    single = write(tmp_path / "single.jsonl", {"prompt": "x"})
    assert_one_line_error(run_inside("batch", single, tmp_path / "no" / "out"), "no such file")
    assert_one_line_error(run_inside("batch", tmp_path, output), "is a directory")
    assert not output.exists()
    assert not partial(output).exists()


def test_progress_tells_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    pace, lines = Pace(lambda: now), Lines(lambda: now)
    progress = Progress(rows=1000, resumed=400, done=400, failed=0)
    assert pace.text(progress) == "400/1,000 rows done before"
    lines(progress)
    now, progress.done, progress.tokens, progress.failed = 4.0, 420, 900, 1
    lines(progress)
    text = "420/1,000 rows (1 failed), 5 rows/s, 225 tokens/s, 1:56 left"
    assert pace.text(progress) == text
    now = 10.0
    lines(progress)
    assert capsys.readouterr().err.splitlines() == [
        "400/1,000 rows done before",
        "420/1,000 rows (1 failed), 2 rows/s, 90 tokens/s, 4:50 left",
    ]
