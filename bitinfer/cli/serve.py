"""``bitinfer serve``: the HTTP server; here it is started and its log is printed."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import click
from click.core import ParameterSource

from bitinfer.cli.options import (
    Sections,
    history_options,
    load_model,
    open_history,
    serving_options,
    session_option,
    setting,
)
from bitinfer.cli.server_extra import needs_extra, print_log
from bitinfer.cli.setting import Whole
from bitinfer.serve.limits import QUEUE_LIMIT, SLOTS


@click.command(
    cls=Sections,
    epilog="""\b
Examples:
  bitinfer serve
  bitinfer serve 2b4t --port 8000
  BITINFER_API_KEY=... bitinfer serve 2b4t --host 0.0.0.0

Ctrl-C or SIGTERM lets running answers finish, a second one cuts them off.
What the server speaks: docs/serve.md.""",
)
@click.argument("name", metavar="[MODEL]", required=False)
@setting("--host", default="127.0.0.1", show_default=True, help="Address to listen on")
@setting(
    "--port", type=Whole(0, 65535), default=8080, show_default=True, help="Port; 0: a free one"
)
@setting("--api-key", metavar="KEY", help="What clients must send; needed for other hosts")
@setting("--allow-host", multiple=True, metavar="NAME", help="Name of this server (repeatable)")
@setting(
    "--allow-origin", multiple=True, metavar="URL", help="Web origin that may ask (repeatable)"
)
@setting("--served-name", metavar="NAME", help="What clients call the model [default: its folder]")
@setting(
    "--slots", type=Whole(1, 256), default=SLOTS, show_default=True, help="Replies made at once"
)
@setting(
    "--queue-size",
    type=Whole(1),
    default=QUEUE_LIMIT,
    show_default=True,
    help="Most replies that wait",
)
@session_option
@setting("--access-log/--no-access-log", default=True, help="A line on stderr for each request")
@history_options
@serving_options
def serve(name: str | None, **options: Any) -> None:
    """Serve MODEL (as --model) over HTTP, to this machine only unless told otherwise."""
    ctx = click.get_current_context()
    if name is not None:
        if ctx.get_parameter_source("model") is ParameterSource.COMMANDLINE:
            raise click.UsageError("MODEL and --model: only one of them", ctx=ctx)
        options["model"] = name
    with needs_extra("server", ctx):
        from bitinfer.serve import server
        from bitinfer.serve.guard import Access
    host, key = options.pop("host"), options.pop("api_key")
    if not key and not server.is_local(host):
        raise click.UsageError(
            f"--host {host}: others could reach it: set --api-key or BITINFER_API_KEY", ctx=ctx
        )
    access = Access(key or None, options.pop("allow_host"), options.pop("allow_origin"))
    served, session = options.pop("served_name"), options.pop("session")
    sizes = {name: options.pop(name) for name in ("slots", "queue_size")}
    print_log(requests=options.pop("access_log"))
    with (
        server.bind(host, options.pop("port")) as sock,
        open_history(options) or nullcontext() as history,
        load_model(options) as model,
    ):
        address, port = sock.getsockname()[:2]
        shown = f"[{address}]" if ":" in address else address
        served = served or model.path.name

        def ready() -> None:
            click.echo(f"serving {served} on http://{shown}:{port} (chat page; API: /v1)", err=True)

        kept: dict[str, Any] = {"session": session, "history": history}
        server.serve(model, sock, access, name=served, ready=ready, **kept, **sizes)
