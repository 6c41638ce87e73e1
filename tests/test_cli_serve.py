"""``bitinfer serve``: what it refuses, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from served import answer
from test_cli import ENVIRONMENT, assert_one_line_error, run_inside


def test_other_hosts_need_a_key() -> None:
    for host in ("0.0.0.0", "::", "192.168.0.1", "example.com"):
        done = run_inside("serve", "--host", host)
        assert_one_line_error(done, host, "--api-key", code=2)


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run_inside("serve", "--port", port)
    assert_one_line_error(done, str(port), "in use")


def test_without_the_extra_it_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "for name in 'starlette', 'uvicorn', 'msgspec', 'prometheus_client', 'h11':\n"
        "    sys.modules[name] = None\n"
        "from bitinfer.cli import main; main(['serve'])"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert_one_line_error(done, 'pip install "bitinfer[server]"')


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The command as a process, and its port."""
    command = [sys.executable, "-m", "bitinfer", "serve", "--port", "0", *arguments]
    # Slow kernels, so that an answer is under way when a signal comes.
    environment = ENVIRONMENT | {"BITINFER_API_KEY": "k", "BITINFER_ISA": "scalar"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stderr is not None
            told = process.stderr.readline()
            found = re.search(r"http://127\.0\.0\.1:(\d+)", told)
            assert found, told
            yield process, int(found[1])
        finally:
            process.kill()


def begin_stream(port: int) -> socket.socket:
    """A long streamed answer, of which the first bytes have come."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "stream": True,
            "max_tokens": 400,
            "logit_bias": {"2": -100},
        }
    )
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.sendall(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
    )
    assert sock.recv(1, socket.MSG_PEEK)
    return sock


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_sigterm_lets_running_answers_finish() -> None:
    with serving("--no-access-log") as (process, port), begin_stream(port) as sock:
        process.send_signal(signal.SIGTERM)
        status, text = answer(sock)
        assert status == 200
        assert text.rstrip("\r\n0").endswith("data: [DONE]")
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_second_signal_cuts_them_off() -> None:
    with serving() as (process, port), begin_stream(port) as sock:
        os.kill(process.pid, signal.SIGSTOP)  # so that both are there before it runs again
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        os.kill(process.pid, signal.SIGCONT)
        with sock.makefile("rb") as file:
            assert b"[DONE]" not in file.read()
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_session_keeps_what_was_read_for_the_next_start(tmp_path) -> None:
    body = json.dumps(
        {"messages": [{"role": "user", "content": "Hi, cat. " * 30}], "max_tokens": 1}
    )
    request = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer k\r\n"
        "connection: close\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    )
    usages = []
    for _ in range(2):
        with serving("--no-access-log", "--session", str(tmp_path / "kept")) as (process, port):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as sock:
                sock.sendall(request.encode())
                usages.append(answer(sock)[1]["usage"])
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
    first, again = (usage["prompt_tokens_details"]["cached_tokens"] for usage in usages)
    assert (first, again) == (0, usages[1]["prompt_tokens"] - 1)


def test_a_session_that_cannot_be_used_is_refused_at_the_start(tmp_path) -> None:
    (tmp_path / "text").write_text("no session")
    done = run_inside("serve", "--port", "0", "--session", tmp_path / "text")
    assert_one_line_error(done, str(tmp_path / "text"))
    done = run_inside("serve", "--port", "0", "--session", tmp_path / "none" / "file")
    assert_one_line_error(done, "expected a file in a folder that is there")
