"""What commands that run the server's code share: its extra must be there, its log is shown."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def needs_extra(extra: str, ctx: click.Context) -> Iterator[None]:
    """Say what to install if an import inside fails for the want of it."""
    try:
        yield
    except ModuleNotFoundError as cause:
        if (cause.name or "").startswith("bitinfer"):
            raise
        raise click.ClickException(
            f'{ctx.info_name}: needs {cause.name}: pip install "bitinfer[{extra}]"'
        ) from None


def print_log(*, requests: bool) -> None:
    """Log to stderr: problems always, requests if wanted."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name in ("bitinfer.serve", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO if requests and name == "bitinfer.serve" else logging.WARNING)
