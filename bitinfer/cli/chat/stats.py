"""The figures below a reply."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bitinfer.cli.size import size_text

if TYPE_CHECKING:
    from bitinfer.generate import Completion, Usage
    from bitinfer.model import Model


def stats(completion: Completion, model: Model, columns: int) -> str:
    """Times, speeds and sizes of a reply, in lines of at most ``columns`` where words allow."""
    from bitinfer import active_isa

    usage = completion.usage
    run = usage.prompt_tokens - usage.cached_tokens
    decoded = usage.completion_tokens - 1  # the first comes out of the prefill
    used = usage.prompt_tokens + usage.completion_tokens
    facts = [
        f"first token {_time(usage.prefill_s)}",
        f"prompt {_count(run, 'token')}{_rate(run, usage.prefill_s)}",
        f"reply {_count(usage.completion_tokens, 'token')}{_rate(decoded, usage.decode_s)}",
        *_drafts(usage),
        f"context {used} of {model.context_length}",
        f"memory {size_text(resident_bytes())}",
        active_isa(),
        _count(model.engine.num_threads, "thread"),
    ]
    lines = [facts[0]]
    for fact in facts[1:]:
        if len(lines[-1]) + 3 + len(fact) <= columns:
            lines[-1] += f" · {fact}"
        else:
            lines.append(fact)
    return "\n".join(lines)


def _drafts(usage: Usage) -> list[str]:
    """How many tokens of the reply were drafted, if any were tried."""
    if not usage.drafted_tokens:
        return []
    return [f"drafts {usage.accepted_tokens} of {usage.drafted_tokens} right"]


def resident_bytes() -> int:
    """Memory of this process: now on Linux, elsewhere the most that it had."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return pages * resource.getpagesize()


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _rate(count: int, seconds: float) -> str:
    return f", {count / seconds:.{0 if count >= 100 * seconds else 1}f}/s" if seconds > 0 else ""
