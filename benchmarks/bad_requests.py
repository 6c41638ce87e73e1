"""Measure how soon a server is done with bad requests, one of each kind.

    python benchmarks/bad_requests.py --record        # about two minutes, most of them the two cuts

Each must get a 4xx in OpenAI's shape, or the cut that docs/serve.md tells of, and the server must
answer a good request after it. The times are told, not judged.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench_model import HERE, record_path, write_record
from serving import bitinfer_server

from bitinfer.machine import machine_facts
from bitinfer.serve import limits

KEY = "bench"
CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "What color is the sky?"}]
GOOD = {"messages": MESSAGES, "max_tokens": 4, "temperature": 0}
CUT = "cut"
SLOTS = ("--slots", "1", "--queue-size", "1")
_MOST_S = 300.0


@dataclass(frozen=True)
class Bad:
    """A way to be bad.

    Attributes:
        expected: Status and code of the answer, or `CUT`.
        ask: Does it at a port; returns what came.
        repeats: How often it is measured; 0: as often as is asked for.
    """

    expected: str
    ask: Callable[[int], str]
    repeats: int = 0


def post(path: str, body: Any, **headers: str) -> bytes:
    """A request; a body that is no bytes is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"host": "localhost", "connection": "close", "content-type": "application/json"}
    named |= {"authorization": f"Bearer {KEY}", "content-length": str(len(content))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in named.items())
    return f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + content


def exchange(request: bytes, port: int) -> str:
    """Send a request and read to the end: status and code, or `CUT`."""
    with socket.create_connection(("127.0.0.1", port), timeout=_MOST_S) as sock:
        with contextlib.suppress(OSError):  # the answer came first
            sock.sendall(request)
        return _told(sock)


def _told(sock: socket.socket) -> str:
    said = b""
    try:
        while piece := sock.recv(1 << 16):
            said += piece
    except OSError:
        pass
    head, _, body = said.partition(b"\r\n\r\n")
    if not head:
        return CUT
    status = head.split()[1].decode()
    error = json.loads(body).get("error", {}) if status != "200" else {}
    return f"{status} {error.get('code', 'good')}"


def pour(head: bytes, piece: bytes, pieces: int, port: int) -> str:
    """Send ``head`` and then ``piece`` again and again, as long as it is taken."""
    with socket.create_connection(("127.0.0.1", port), timeout=_MOST_S) as sock:
        try:
            sock.sendall(head)
            for _ in range(pieces):
                sock.sendall(piece)
        except OSError:
            pass
        return _told(sock)


def stall(port: int) -> str:
    """Ask for megabytes and read nothing."""
    body = {"tokens": [400] * 1_000_000}  # more than the system keeps between two programs
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", port))
        sock.sendall(post("/detokenize", body))
        end_s = time.monotonic() + _MOST_S
        while _connected(sock.getsockname()[1]):  # the client is not told: it would have to read
            if time.monotonic() > end_s:
                return "nothing"
            time.sleep(0.01)
        return CUT


def _connected(client_port: int) -> bool:
    """Whether the server's end of a connection is open (state 01 in Linux's table)."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(
        other.endswith(f":{client_port:04X}") and state == "01"
        for _, _, other, state, *_ in map(str.split, lines)
    )


def take_port(port: int) -> str:
    """Start another server at the same port."""
    command = [sys.executable, "-m", "bitinfer", "serve", "--port", str(port)]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=tempfile.gettempdir()
    )
    return f"exit {done.returncode}, {len(done.stderr.splitlines())} line"


def _chat(expected: str, **fields: Any) -> Bad:
    return Bad(expected, partial(exchange, post(CHAT, {**GOOD, **fields})))


def _schema(schema: Any) -> Bad:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    return _chat("400 grammar_error", response_format=form)


def _headers(expected: str, **headers: str) -> Bad:
    return Bad(expected, partial(exchange, post(CHAT, GOOD, **headers)))


INVALID = "400 invalid_value"
_HEAD = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\n".encode()
_CHUNKED = _HEAD + b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
_MIB = 1 << 20
KINDS: dict[str, Bad] = {
    "broken JSON": Bad("400 invalid_json", partial(exchange, post(CHAT, b'{"messages": ['))),
    "deep JSON": Bad("400 too_deep", partial(exchange, post(CHAT, b'{"a":' * 100_000))),
    "wrong content type": _headers("415 unsupported_media_type", content_type="text/plain"),
    "messages null": _chat(INVALID, messages=None),
    "messages a text": _chat(INVALID, messages="hi"),
    "messages nested": _chat(INVALID, messages=[MESSAGES]),
    "n 10⁹": _chat(INVALID, n=10**9),
    "n −1": _chat(INVALID, n=-1),
    "n 1.5": _chat(INVALID, n=1.5),
    'n "2"': _chat(INVALID, n="2"),
    "temperature NaN": _chat("400 invalid_json", temperature=float("nan")),
    "prompt one token too long": Bad(
        "400 context_length_exceeded", partial(exchange, post(PLAIN, {"prompt": [400] * 1024}))
    ),
    "prompt of 8 MB": Bad(
        "400 context_length_exceeded", partial(exchange, post(PLAIN, {"prompt": "a" * 8_000_000}))
    ),
    "empty prompt": Bad("400 invalid_prompt", partial(exchange, post(PLAIN, {"prompt": ""}))),
    "bad schema": _schema({"type": "nonsense"}),
    "remote $ref": _schema({"$ref": "http://127.0.0.1:9/x"}),
    "$ref to a file": _schema({"$ref": "file:///etc/passwd"}),
    "regex (a?){5000}a{5000}": _chat("400 grammar_error", regex="(a?){5000}a{5000}", max_tokens=64),
    "regex (([a-z ]+)+[.])+!": _chat(  # slow for a matcher that tries one way after the other
        "200 good", regex="(([a-z ]+)+[.])+!", max_tokens=64
    ),
    "enum of 100,000": Bad(
        INVALID,
        _schema({"enum": [f"value {i}" for i in range(100_000)]}).ask,
    ),
    "no key": _headers("401 invalid_api_key", authorization=""),
    "wrong key": _headers("401 invalid_api_key", authorization="Bearer wrong"),
    "hostile Host": _headers("403 host_not_allowed", host="evil.example"),
    "hostile Origin": _headers("403 origin_not_allowed", origin="http://evil.example"),
    "header of 64 MiB": Bad("400 invalid_http", partial(pour, _HEAD + b"x: ", b"a" * _MIB, 64)),
    "endless chunked body": Bad(
        "413 body_too_large",
        partial(pour, _CHUNKED, b"100000\r\n" + b" " * _MIB + b"\r\n", 1 << 20),
    ),
    "queue full": _chat("429 queue_full", n=9),
    "model ../../etc/passwd": _chat("404 model_not_found", model="../../etc/passwd"),
    "CR and LF in a logged field": Bad(
        "404 not_found", partial(exchange, post("/a%0d%0aforged", GOOD))
    ),
    "slow headers": Bad("408 timeout", partial(exchange, _HEAD), repeats=1),
    "stalled reader": Bad(CUT, stall, repeats=1),
    "port taken": Bad("exit 1, 1 line", take_port, repeats=1),
}


def measure(name: str, port: int, repeats: int) -> dict[str, Any]:
    """A record of one kind.

    Raises:
        SystemExit: something else came, or the server does not say any more what it said.
    """
    bad, taken = KINDS[name], []
    for _ in range(bad.repeats or repeats):
        began = time.perf_counter()
        came = bad.ask(port)
        taken.append(round((time.perf_counter() - began) * 1e3, 1))
        if came != bad.expected:
            raise SystemExit(f"{name}: expected {bad.expected}, got {came}")
    if (came := exchange(post(CHAT, GOOD), port)) != "200 good":
        raise SystemExit(f"{name}: a good request got {came} after it")
    return {
        "request": name,
        "answer": bad.expected,
        "answered_ms": statistics.median(taken),
        "answered_ms_runs": taken,
    }


def main() -> None:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-r", "--repeats", type=int, default=5)
    parser.add_argument(
        "--record", action="store_true", help="add a record to records/bad-requests"
    )
    args = parser.parse_args()
    facts = machine_facts(HERE)
    if args.record:
        record_path(facts, "bad-requests")
    cuts = {"header_s": limits.HEADER_TIME_S, "send_s": limits.SEND_TIME_S}
    records = []
    with bitinfer_server("tales-14m", "--no-history", "--api-key", KEY, *SLOTS) as server:
        for name in KINDS:
            records.append({**measure(name, server.port, args.repeats), **cuts, **facts})
            print(f"{name}: {records[-1]['answer']} after {records[-1]['answered_ms']} ms")
    if args.record:
        print(write_record(records, "bad-requests"))


if __name__ == "__main__":
    main()
