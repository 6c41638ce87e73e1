"""The ASGI application: its routes, and the guard before them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from bitinfer.errors import BitinferError
from bitinfer.serve import conversations, info, ollama, ollama_models, pages, schemas
from bitinfer.serve.chat import chat_completions
from bitinfer.serve.completions import completions
from bitinfer.serve.embeddings import EmbeddingsRequest, embeddings
from bitinfer.serve.guard import Access, Guard, error_response
from bitinfer.serve.openapi import documented, openapi
from bitinfer.serve.problems import ApiError, api_error
from bitinfer.serve.response_request import ResponsesRequest
from bitinfer.serve.responses import responses
from bitinfer.serve.service import Service

_POSTS: dict[str, tuple[Callable[[Request], Awaitable[Response]], type]] = {
    "/v1/chat/completions": (chat_completions, schemas.ChatRequest),
    "/v1/completions": (completions, schemas.CompletionRequest),
    "/v1/responses": (responses, ResponsesRequest),
    "/v1/embeddings": (embeddings, EmbeddingsRequest),
    "/api/chat": (ollama.chat, ollama.OllamaChat),
    "/api/generate": (ollama.generate, ollama.OllamaGenerate),
    "/api/show": (ollama_models.show, ollama_models.OllamaShow),
    "/tokenize": (info.tokenize, schemas.TokenizeRequest),
    "/detokenize": (info.detokenize, schemas.DetokenizeRequest),
}
BODIES = {path: body for path, (_, body) in _POSTS.items()}  # what each of them takes
_GETS = {
    "/": pages.page,
    "/static/{name}": pages.static,
    "/health": info.health,
    "/ready": info.ready,
    "/metrics": info.metrics,
    "/openapi.json": openapi,
    "/v1/models": info.models,
    "/v1/models/{name:path}": info.one_model,
    "/api/tags": ollama_models.tags,
    "/api/ps": ollama_models.ps,
    "/api/version": ollama_models.version,
}
_ROUTES = [Route(path, endpoint) for path, endpoint in _GETS.items()]
_ROUTES += [Route(path, endpoint, methods=["POST"]) for path, (endpoint, _) in _POSTS.items()]
_ROUTES += [Route(path, endpoint, methods=[how]) for how, path, endpoint, _ in conversations.ROUTES]
_BODY_OF: dict[Any, type] = dict(_POSTS.values())
_BODY_OF |= {endpoint: body for *_, endpoint, body in conversations.ROUTES if body is not None}


def make_app(service: Service, access: Access) -> ASGIApp:
    """The application that serves ``service`` to those whom ``access`` allows."""
    inner = Starlette(
        routes=_ROUTES,
        exception_handlers={
            HTTPException: _http_error,
            ApiError: _error,
            BitinferError: _error,
            ClientDisconnect: _gone,
            Exception: _error,
        },
    )
    inner.state.service = service
    inner.state.openapi = documented(_ROUTES, _BODY_OF)
    app: ASGIApp = Guard(inner, access, service.metrics, {route.path for route in _ROUTES})
    if access.origins:
        app = CORSMiddleware(  # before the guard, for a browser asks first without the key
            app,
            allow_origins=list(access.origins),
            allow_methods=sorted({method for route in _ROUTES for method in route.methods or ()}),
            allow_headers=["*"],  # OpenAI's client in a browser sends many of its own
            expose_headers=["retry-after", "x-request-id"],
        )
    return app


async def _error(request: Request, cause: Exception) -> Response:
    return error_response(request, api_error(cause))


async def _gone(request: Request, cause: Exception) -> Response:
    return Response(status_code=499)  # for the log: nobody hears it


async def _http_error(request: Request, cause: Exception) -> Response:
    """Starlette's own: no such path, or not this method."""
    assert isinstance(cause, HTTPException)
    path, method = request.url.path, request.method
    if cause.status_code == 404:
        error = ApiError(404, f"path: {path} is not served: /openapi.json lists all", "not_found")
    else:
        routes = [route for route in _ROUTES if route.path_regex.match(path)]
        allowed = {allowed for route in routes for allowed in route.methods or ()}
        error = ApiError(
            cause.status_code,
            f"method: {path} does not take {method}",
            "method_not_allowed",
            headers={"allow": ", ".join(sorted(allowed))},
        )
    return error_response(request, error)
