"""A server on this machine that speaks the hub's protocol, and can misbehave in known ways."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from checkpoints import TINY, tiny_checkpoint
from huggingface_hub import constants

import bitinfer

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPO = "owner/tiny"
WEIGHTS = "model.safetensors"


def model_files(folder: Path, seed: int = 0, **options: object) -> dict[str, bytes]:
    """Name to content of a small model with a tokenizer; ``folder`` gets it too."""
    tiny_checkpoint(folder, {**TINY, "vocab_size": 4096}, seed=seed, **options)
    shutil.copy(bitinfer.default_model() / "tokenizer.json", folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def silent(step: str, done: int, total: int) -> None:
    pass


class Steps(list):
    def __call__(self, step: str, done: int, total: int) -> None:
        self.append((step, done, total))


def partial() -> list[Path]:
    return sorted(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


class FakeHub:
    """One repository, ``owner/tiny``.

    Attributes:
        endpoint: Where it is, while it is served.
        files: Name to content, as the hub describes it.
        sent: Name to content, where what is sent is something else.
        commit: Of every revision.
        token: Asked for, if set.
        refuse: (status, headers) of every request whose path has the text ``refuse_path``.
        stop_at: Bytes of the weights after which a connection is cut, once for each entry.
        hold: Called in the middle of the weights.
        requests: (path, Range header) of each GET, in order.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.endpoint = ""
        self.sent: dict[str, bytes] = {}
        self.commit = COMMIT
        self.token: str | None = None
        self.refuse: tuple[int, dict[str, str]] | None = None
        self.refuse_path = ""
        self.stop_at: list[int] = []
        self.hold: Callable[[], object] = lambda: None
        self.requests: list[tuple[str, str | None]] = []

    def description(self) -> bytes:
        siblings = []
        for name, content in self.files.items():
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git}
            if name.endswith((".safetensors", ".gguf")):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
            siblings.append(entry)
        facts = {"id": REPO, "sha": self.commit, "tags": ["license:mit"], "siblings": siblings}
        return json.dumps(facts).encode()

    def fetched(self, name: str) -> list[str | None]:
        """The Range header of each request for a file."""
        return [header for path, header in self.requests if path == f"/cdn/{name}"]


@contextmanager
def serve(hub: FakeHub) -> Iterator[None]:
    """Serve ``hub`` on a free port."""

    class Handler(_Handler):
        fake = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        hub.endpoint = f"http://127.0.0.1:{server.server_port}"
        yield
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()


class _Handler(BaseHTTPRequestHandler):
    fake: FakeHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        fake, path = self.fake, self.path.partition("?")[0]
        fake.requests.append((path, self.headers.get("Range")))
        if fake.refuse and fake.refuse_path in path:
            self._answer(*fake.refuse)
        elif path.startswith("/cdn/"):
            self._content(path.removeprefix("/cdn/"))
        elif fake.token and self.headers.get("Authorization") != f"Bearer {fake.token}":
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif re.fullmatch(rf"/api/models/{REPO}/revision/[^/]+", path):
            self._answer(200, {"Content-Type": "application/json"}, fake.description())
        elif (name := path.removeprefix(f"/{REPO}/resolve/{fake.commit}/")) in fake.files:
            self._answer(302, {"Location": f"/cdn/{name}"})  # as the hub does for large files
        else:
            self._answer(404, {"X-Error-Code": "RepoNotFound"})

    def _answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _content(self, name: str) -> None:
        content = self.fake.sent.get(name, self.fake.files[name])
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-"))
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if name == WEIGHTS:
            half = len(content) // 2
            if self.fake.stop_at:
                self.wfile.write(content[begin : self.fake.stop_at.pop(0)])
                self.close_connection = True
                return
            self.wfile.write(content[begin:half])
            begin = max(begin, half)
            self.fake.hold()
        self.wfile.write(content[begin:])
