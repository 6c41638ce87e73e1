"""What the server tells of itself and its model, and the tokenizer by itself."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.sampling import SETTINGS
from bitinfer.serve.events import JsonResponse
from bitinfer.serve.problems import invalid
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import DetokenizeRequest, TokenizeRequest
from bitinfer.serve.service import Service


async def health(request: Request) -> Response:
    """GET /health: the process lives."""
    return JsonResponse({"status": "ok"})


async def ready(request: Request) -> Response:
    """GET /ready: it takes requests."""
    service: Service = request.app.state.service
    service.check_ready()
    return JsonResponse({"status": "ready"})


async def metrics(request: Request) -> Response:
    """GET /metrics: for Prometheus."""
    service: Service = request.app.state.service
    return Response(service.metrics.text(), headers={"content-type": CONTENT_TYPE_LATEST})


async def models(request: Request) -> Response:
    """GET /v1/models: there is one."""
    return JsonResponse({"object": "list", "data": [_model(request.app.state.service)]})


async def one_model(request: Request) -> Response:
    """GET /v1/models/{name}."""
    service: Service = request.app.state.service
    service.check_model(request.path_params["name"])
    return JsonResponse(_model(service))


def _model(service: Service) -> dict[str, Any]:
    """The model, with its own sampling and what may be set instead."""
    defaults = service.model.sampling
    sampling = {
        name: {"default": getattr(defaults, name), **{k: about[k] for k in ("low", "high", "help")}}
        for name, about in SETTINGS.items()
        if about["kind"] != "bias"
    }
    return {
        "id": service.name,
        "object": "model",
        "created": service.started,
        "owned_by": "bitinfer",
        "context_length": service.model.context_length,
        "sampling": sampling,
    }


async def tokenize(request: Request) -> Response:
    """POST /tokenize: ids of a text."""
    service: Service = request.app.state.service
    body = await read(request, TokenizeRequest)
    service.check_model(body.model)
    tokenizer = service.model.tokenizer
    token_ids = await service.prepare(
        lambda: tokenizer.encode(
            body.content, add_special_tokens=body.add_special, parse_special=body.parse_special
        )
    )
    return JsonResponse({"tokens": token_ids})


async def detokenize(request: Request) -> Response:
    """POST /detokenize: the text of ids."""
    service: Service = request.app.state.service
    body = await read(request, DetokenizeRequest)
    service.check_model(body.model)
    tokenizer = service.model.tokenizer
    for token_id in body.tokens:
        if token_id >= tokenizer.vocab_size:
            raise invalid(f"tokens: expected ids below {tokenizer.vocab_size}, got {token_id}")
    text = await service.prepare(lambda: tokenizer.decode(body.tokens, skip_special_tokens=False))
    return JsonResponse({"content": text})
