"""On a real Ray cluster of this machine: 1,000 rows, each once, as in one process, also if a
process is killed meanwhile."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import openai
import pyarrow
import pytest
from pyarrow import parquet
from ray import serve

import bitinfer.ray
from bitinfer.batch.run import Progress, run_batch
from bitinfer.errors import BatchError, ConfigError
from bitinfer.model import Model

COUNT = 1000
TOKENS = 4


def question(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"Tell me of {number} cats."}]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "in.jsonl"
    rows = ({"custom_id": f"q{i}", "messages": question(i)} for i in range(COUNT))
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def expected(model: Model, source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What one process says."""
    output = tmp_path_factory.mktemp("answers") / "out.jsonl"
    run_batch(model, source, output, defaults={"max_tokens": TOKENS})
    answers = texts([json.loads(line) for line in output.read_text().splitlines()])
    alone = [
        model.chat(question(i), max_tokens=TOKENS, seed=i + 1).text for i in range(0, COUNT, 97)
    ]
    assert answers[::97] == alone
    return answers


def texts(answers: list[dict[str, Any]]) -> list[str]:
    """The replies, which must be those of the rows one by one."""
    assert [answer["custom_id"] for answer in answers] == [f"q{i}" for i in range(len(answers))]
    return [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers]


def kill_one(name: str) -> None:
    """kill -9 one of two processes of this cluster that Ray named so."""
    pids = [int(place.name) for place in Path("/proc").glob("[0-9]*") if is_ours(place, name)]
    assert len(pids) == 2, pids
    os.kill(pids[0], signal.SIGKILL)


def is_ours(place: Path, name: str) -> bool:
    """Whether a process has ``name`` in its title and stands two below this one."""
    with suppress(OSError):  # some end meanwhile
        parent = Path("/proc") / parent_of(place)
        return name in (place / "cmdline").read_text() and parent_of(parent) == str(os.getpid())
    return False


def parent_of(place: Path) -> str:
    return (place / "stat").read_text().rpartition(")")[2].split()[1]


class Cut(Exception):  # noqa: N818
    pass


def test_a_batch_survives_an_actor_and_goes_on_after_its_driver(
    cluster: None, source: Path, expected: list[str], tmp_path: Path
) -> None:
    def report(progress: Progress) -> None:
        if progress.done == 200:
            kill_one("RowAnswerer")
        if progress.done == 600:
            raise Cut

    given: dict[str, Any] = {"actors": 2, "defaults": {"max_tokens": TOKENS}, "slots": 8}
    output = tmp_path / "out.jsonl"
    with pytest.raises(Cut):
        bitinfer.ray.run_batch(source, output, report=report, **given)
    assert not output.exists()
    given["actors"] = 1
    done = bitinfer.ray.run_batch(source, output, **given)
    assert (done.rows, done.resumed, done.done, done.failed) == (COUNT, 600, COUNT, 0)
    assert texts([json.loads(line) for line in output.read_text().splitlines()]) == expected
    assert bitinfer.ray.run_batch(source, output, **given).resumed == COUNT


def test_a_parquet_file_is_answered_like_its_json_lines(
    cluster: None, expected: list[str], tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"custom_id": f"q{i}", "messages": question(i), "prompt": None} for i in range(40)
    ]
    rows.append({"custom_id": "bad", "messages": None, "prompt": ""})
    source, output = tmp_path / "in.parquet", tmp_path / "out.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), source)
    given: dict[str, Any] = {"defaults": {"max_tokens": TOKENS}}
    done = bitinfer.ray.run_batch(source, output, **given)
    assert (done.rows, done.failed) == (41, 1)
    *answers, bad = parquet.read_table(output).to_pylist()
    for answer in answers:
        answer["response"] = json.loads(answer["response"])
    assert texts(answers) == expected[:40]
    assert json.loads(bad["response"])["status_code"] == 400
    again = bitinfer.ray.run_batch(source, output, **given)
    assert (again.resumed, again.failed) == (41, 1)


@pytest.fixture
def replicas(cluster: None) -> Iterator[str]:
    """The URL of two replicas."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"port": port}, logging_config={"log_level": "ERROR"})
    serve.run(bitinfer.ray.app({"min_replicas": "2", "slots": "8"}), name="bitinfer")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_a_server_survives_a_replica(replicas: str, expected: list[str]) -> None:
    client = openai.OpenAI(base_url=f"{replicas}/v1", api_key="none", max_retries=8, timeout=60)
    ended = threading.Semaphore(0)

    def ask(number: int) -> str:
        reply = client.chat.completions.create(
            model="tales-14m",
            messages=question(number),  # type: ignore[arg-type]
            max_tokens=TOKENS,
            seed=number + 1,
        )
        ended.release()
        return str(reply.choices[0].message.content)

    with ThreadPoolExecutor(16) as pool:
        replies = pool.map(ask, range(COUNT))
        for _ in range(COUNT // 3):
            ended.acquire()
        kill_one("Replica")
        assert list(replies) == expected


def test_what_serve_run_is_told_is_checked() -> None:
    for args, message in (
        ({"replicas": "2"}, "replicas: expected one of model, name, slots"),
        ({"slots": "many"}, "slots: expected a whole number from 1, got many"),
    ):
        with pytest.raises(ConfigError, match=message):
            bitinfer.ray.app(args)


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    for damaged in (b"", b"PAR1 but no more", b"PAR1" + b"\0" * 64 + b"PAR1"):
        source.write_bytes(damaged)
        with pytest.raises(BatchError, match="expected Parquet"):
            bitinfer.ray.run_batch(source, tmp_path / "out.parquet")
