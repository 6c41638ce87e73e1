"""The server as a deployment of Ray Serve: each replica is one process with a batch of its own."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from typing import Any

from ray import serve
from starlette.types import ASGIApp

from bitinfer.errors import ConfigError
from bitinfer.model import Model
from bitinfer.runtime import default_model
from bitinfer.serve.app import make_app
from bitinfer.serve.batching import BatchingBackend
from bitinfer.serve.guard import Access
from bitinfer.serve.limits import QUEUE_LIMIT, SLOTS
from bitinfer.serve.service import Service

_NUMBERS = ("slots", "threads", "min_replicas", "max_replicas")


class Replica:
    """One process that serves a model."""

    def __init__(
        self, model: str, name: str | None, slots: int, access: Access, load: Mapping[str, Any]
    ) -> None:
        self._model = Model.load(model, **load)
        backend = BatchingBackend(self._model.engine, self._model.setup, slots=slots)
        self._service = Service(self._model, backend, name or self._model.path.name)
        self._access = access

    def __serve_build_asgi_app__(self) -> ASGIApp:  # Ray's name
        """What the replica answers with, once it is there."""
        return make_app(self._service, self._access)

    def check_health(self) -> None:
        """Ray asks now and then, and replaces a replica that cannot answer any more.

        Raises:
            ApiError: it cannot.
        """
        self._service.check_ready()

    def __del__(self) -> None:
        """End the batch when Ray has drained the replica."""
        if hasattr(self, "_service"):
            self._service.close()
            self._model.close()


def deployment(
    model: str | None = None,
    *,
    name: str | None = None,
    threads: int = 1,
    slots: int = SLOTS,
    min_replicas: int = 1,
    max_replicas: int | None = None,
    api_key: str | None = None,
    hosts: Collection[str] = (),
    origins: Collection[str] = (),
    load: Mapping[str, Any] | None = None,
) -> serve.Application:
    """An application for ``serve.run``.

    Args:
        model: A folder that each host has, or a name, as `Model.load` takes it; None: the embedded
            model.
        name: What clients call it; None: as its folder.
        threads: Of a replica; so many CPUs it takes from Ray.
        slots: Replies that a replica makes at once; Ray sends it no more requests than that.
        min_replicas: Replicas at least.
        max_replicas: At most, as many as requests need; None: always ``min_replicas``.
        api_key: What clients must send; needed if others can reach Ray's proxy.
        hosts: Names by which clients call the proxy, besides localhost and IP addresses.
        origins: Web origins whose pages may ask.
        load: More of what `Model.load` takes. Unless it says otherwise, weights stay mapped, so
            that the replicas of a host share their pages.
    """
    most = min_replicas if max_replicas is None else max_replicas
    scaling: dict[str, Any] = {"num_replicas": min_replicas}
    if most > min_replicas:
        scaling = {
            "autoscaling_config": {
                "min_replicas": min_replicas,
                "max_replicas": most,
                "target_ongoing_requests": max(1, slots // 2),  # room for what comes meanwhile
            }
        }
    loading = {"weights": "mmap", **(load or {}), "num_threads": threads}
    replica = serve.deployment(
        serve.ingress()(Replica),
        name="bitinfer",
        max_ongoing_requests=slots,
        max_queued_requests=QUEUE_LIMIT,
        ray_actor_options={"num_cpus": threads},
        **scaling,
    )
    access = Access(api_key, tuple(hosts), tuple(origins))
    return replica.bind(str(model or default_model()), name, slots, access, loading)


def app(args: Mapping[str, str]) -> serve.Application:
    """The same for ``serve run bitinfer.ray:app model=2b4t threads=8 max_replicas=4``.

    Args:
        args: What `deployment` takes, as texts: ``model``, ``name``, the four numbers, ``hosts``
            and ``origins`` with commas. The key is that of the variable ``BITINFER_API_KEY``.

    Raises:
        ConfigError: an argument has no such name, or is no number.
    """
    options: dict[str, Any] = {"api_key": os.environ.get("BITINFER_API_KEY") or None}
    for key, text in args.items():
        if key in _NUMBERS:
            if not (text.isascii() and text.isdecimal() and int(text) > 0):
                raise ConfigError(f"{key}: expected a whole number from 1, got {text}")
            options[key] = int(text)
        elif key in ("hosts", "origins"):
            options[key] = text.split(",")
        elif key in ("model", "name"):
            options[key] = text
        else:
            known = ", ".join(("model", "name", *_NUMBERS, "hosts", "origins"))
            raise ConfigError(f"{key}: expected one of {known}")
    return deployment(**options)
