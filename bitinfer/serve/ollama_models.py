"""What Ollama's API tells of models (/api/tags, ps, show, version); here there is one."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from msgspec import Struct
from starlette.requests import Request
from starlette.responses import Response

from bitinfer import runtime
from bitinfer.families.spec import num_parameters
from bitinfer.model_folder import file_bytes
from bitinfer.serve.events import JsonResponse
from bitinfer.serve.reading import read
from bitinfer.serve.service import Service
from bitinfer.serve.tools import ToolFormat
from bitinfer.thinking import OPEN

_NEVER = "9999-12-31T23:59:59Z"  # when the model leaves memory


class OllamaShow(Struct):
    """POST /api/show."""

    model: str | None = None
    name: str | None = None  # as older clients call it


async def tags(request: Request) -> Response:
    """The model that there is."""
    service: Service = request.app.state.service
    return JsonResponse(
        {"models": [{**_model(service), "modified_at": time_text(service.started)}]}
    )


async def ps(request: Request) -> Response:
    """The model that is in memory."""
    service: Service = request.app.state.service
    facts = {
        "expires_at": _NEVER,
        "size_vram": 0,
        "context_length": service.model.context_length,
    }
    return JsonResponse({"models": [{**_model(service), **facts}]})


async def show(request: Request) -> Response:
    """What the model is and can do."""
    service: Service = request.app.state.service
    body = await read(request, OllamaShow)
    service.check_model(body.model or body.name)
    model = service.model
    spec = model.engine.spec
    template = model.chat_template.source if model.chat_template else ""
    can = {
        "completion": True,
        "tools": ToolFormat(template).known,
        "thinking": OPEN in template,
        "embedding": model.pooling.trained,
    }
    family = spec["model_type"]
    return JsonResponse(
        {
            "modified_at": time_text(service.started),
            "template": template,
            "details": _details(service),
            "model_info": {
                "general.architecture": family,
                "general.parameter_count": num_parameters(spec),
                f"{family}.context_length": model.context_length,
                f"{family}.embedding_length": spec["hidden_size"],
                f"{family}.block_count": spec["num_hidden_layers"],
            },
            "capabilities": [name for name, known in can.items() if known],
        }
    )


async def version(request: Request) -> Response:
    """The version of bitinfer."""
    return JsonResponse({"version": runtime.version()})


def time_text(seconds: float | None = None) -> str:
    """A point in time; None: now."""
    zone = timezone.utc
    moment = datetime.now(zone) if seconds is None else datetime.fromtimestamp(seconds, zone)
    return moment.isoformat().replace("+00:00", "Z")


def _model(service: Service) -> dict[str, Any]:
    name = f"{service.name}:latest"
    return {
        "name": name,
        "model": name,
        "size": file_bytes(service.model.path),
        "digest": "",
        "details": _details(service),
    }


def _details(service: Service) -> dict[str, Any]:
    spec = service.model.engine.spec
    return {
        "format": "bitinfer",
        "family": spec["model_type"],
        "families": [spec["model_type"]],
        "parameter_size": f"{num_parameters(spec) / 1e6:.0f}M",
        "quantization_level": service.model.engine.packing,
    }
