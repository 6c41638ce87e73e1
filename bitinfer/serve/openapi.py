"""GET /openapi.json: what the API is, made from the routes and the types of their bodies."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from starlette.convertors import IntegerConvertor, PathConvertor, StringConvertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bitinfer.runtime import version
from bitinfer.serve.events import JsonResponse
from bitinfer.serve.guard import OPEN_PATHS

_TYPES: dict[type, str] = {
    IntegerConvertor: "integer",
    PathConvertor: "string",
    StringConvertor: "string",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "string"},
            },
        }
    },
}


_OLLAMA_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
}


async def openapi(request: Request) -> Response:
    """The document."""
    return JsonResponse(request.app.state.openapi())


def documented(routes: Sequence[Route], bodies: Mapping[Any, type]) -> Any:
    """A function that makes the document, once.

    Args:
        routes: All routes.
        bodies: The type of the body of each endpoint that takes one.
    """

    @cache
    def document() -> dict[str, Any]:
        order = list(bodies.values())
        schemas, components = msgspec.json.schema_components(
            order, ref_template="#/components/schemas/{name}"
        )
        found = dict(zip(bodies, schemas, strict=True))
        paths: dict[str, dict[str, Any]] = {}
        for route in routes:
            entry = _operation(route, found.get(route.endpoint))
            paths.setdefault(route.path_format, {})[_method(route)] = entry
        return {
            "openapi": "3.1.0",
            "info": {"title": "bitinfer", "version": version()},
            "paths": paths,
            "components": {
                "schemas": {
                    **components,
                    "Error": _ERROR_SCHEMA,
                    "OllamaError": _OLLAMA_ERROR_SCHEMA,
                },
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
        }

    return document


def _method(route: Route) -> str:
    """The one that it has (HEAD is there with every GET)."""
    return next(iter((route.methods or set()) - {"HEAD"})).lower()


def _error(path: str) -> dict[str, Any]:
    """Answers that say what is wrong."""
    api, name = ("Ollama", "OllamaError") if path.startswith("/api/") else ("OpenAI", "Error")
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    return {"description": f"What is wrong, in {api}'s shape", "content": content}


def _operation(route: Route, schema: Mapping[str, Any] | None) -> dict[str, Any]:
    """The entry of a route."""
    summary = (inspect.getdoc(route.endpoint) or "").split("\n")[0].rstrip(".")
    entry: dict[str, Any] = {
        "summary": summary,
        "responses": {"2XX": {"description": "The answer"}, "4XX": _error(route.path)},
        "security": [] if route.path in OPEN_PATHS else [{}, {"key": []}],
    }
    if schema is not None:
        content = {"application/json": {"schema": schema}}
        entry["requestBody"] = {"required": True, "content": content}
    if route.param_convertors:
        entry["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": _TYPES[type(kind)]}}
            for name, kind in route.param_convertors.items()
        ]
    return entry
