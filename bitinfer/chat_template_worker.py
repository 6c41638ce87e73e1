"""Child process that renders chat templates: a script of its own, started by chat_template.py.

It imports nothing of bitinfer, so that it starts fast and knows little. Protocol on stdin and
stdout: frames of a 4-byte little-endian length and JSON in ASCII. The first frame is
``{"path": [...], "memory_bytes": n}`` and is answered by ``{"ready": true}``; each further one is
``{"template", "variables", "cpu_s", "wall_s", "most_chars"}`` and is answered by ``{"text"}`` or
``{"error"}``. The end of stdin ends the process; so do the limits, with no answer at all.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import signal
import struct
import sys
import time
from functools import lru_cache
from typing import Any, BinaryIO, NoReturn

try:
    import resource
except ImportError:  # Windows: the parent's wall clock is the only limit
    resource = None  # type: ignore[assignment]


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """Next frame, or None at the end of the stream."""
    header = stream.read(4)
    if len(header) < 4:
        return None
    (size,) = struct.unpack("<I", header)
    body = stream.read(size)
    return json.loads(body) if len(body) == size else None


def write_frame(stream: BinaryIO, value: dict[str, Any]) -> None:
    """Write ``value`` as one frame and flush."""
    body = json.dumps(value).encode("ascii")
    stream.write(struct.pack("<I", len(body)) + body)
    stream.flush()


def limit_memory(most_bytes: int) -> None:
    """Cap the address space, where the system can, and leave no core file at a limit."""
    if resource is not None:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))


def limit_time(cpu_s: float, wall_s: float) -> None:
    """Let the kernel end this process after so much more time: no code has to run for that."""
    if resource is not None:
        with contextlib.suppress(OSError, ValueError):
            _, hard = resource.getrlimit(resource.RLIMIT_CPU)
            soft = math.ceil(time.process_time() + cpu_s)
            resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, wall_s)


@lru_cache(maxsize=4)
def compiled(source: str) -> Any:
    """Jinja template of ``source`` in an environment like that of transformers."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %}`` marks what to train on; here it is only its body."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def strftime_now(pattern: str) -> str:
        return datetime.datetime.now().strftime(pattern)

    def tojson(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(source)


def render(request: dict[str, Any]) -> dict[str, Any]:
    """Answer one request; whatever a template does wrong becomes one line."""
    try:
        pieces, size = [], 0
        for piece in compiled(request["template"]).generate(**request["variables"]):
            pieces.append(piece)
            size += len(piece)
            if size > request["most_chars"]:
                return {"error": f"expected at most {request['most_chars']} characters, got more"}
        return {"text": "".join(pieces)}
    except MemoryError:
        return {"error": "expected a text that fits in memory, got more"}
    except Exception as cause:  # hostile code can raise anything
        line = getattr(cause, "lineno", None)
        where = f"line {line}: " if isinstance(line, int) else ""
        name = type(cause).__name__
        text = " ".join(str(cause).split())[:300] or name
        return {"error": where + (text if name.startswith("Template") else f"{name}: {text}")}


def main() -> None:
    """Serve requests until stdin ends."""
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(source)
    if first is None:
        return
    sys.path[:] = first["path"]
    compiled("")  # imports jinja2 before memory is limited
    limit_memory(first["memory_bytes"])
    write_frame(sink, {"ready": True})
    while (request := read_frame(source)) is not None:
        limit_time(request["cpu_s"], request["wall_s"])
        answer = render(request)
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)
        write_frame(sink, answer)


if __name__ == "__main__":
    main()
