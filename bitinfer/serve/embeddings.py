"""POST /v1/embeddings: texts to vectors."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from bitinfer.serve import limits
from bitinfer.serve.events import JsonResponse
from bitinfer.serve.problems import ApiError
from bitinfer.serve.reading import read
from bitinfer.serve.schemas import Text
from bitinfer.serve.service import Service

Texts = Annotated[list[Text], Meta(min_length=1, max_length=limits.MOST_EMBEDDINGS)]


class EmbeddingsRequest(Struct, kw_only=True):
    """POST /v1/embeddings."""

    input: Text | Texts
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None
    user: Annotated[str, Meta(max_length=256)] | None = None


async def embeddings(request: Request) -> Response:
    """Make a vector of each text."""
    service: Service = request.app.state.service
    body = await read(request, EmbeddingsRequest)
    service.check_model(body.model)
    model = service.model
    size = int(model.engine.spec["hidden_size"])
    if body.dimensions not in (None, size):
        raise ApiError(
            400,
            f"dimensions: expected {size}, got {body.dimensions}",
            "invalid_value",
            "dimensions",
        )
    texts = [body.input] if isinstance(body.input, str) else body.input
    for text in texts:
        service.check_length([text], "input")

    def work() -> tuple[NDArray[np.float32], int]:
        tokens = sum(len(model.tokenizer.encode_whole(text)) for text in texts)
        return model.embed(texts), tokens

    try:
        vectors, tokens = await service.embed(work)
    except ApiError as cause:  # named as it is here, without advice for Python
        message = str(cause).partition(", or cut it")[0]
        raise ApiError(cause.status, message, cause.code, "input") from None
    data = [
        {"object": "embedding", "index": i, "embedding": _written(vector, body.encoding_format)}
        for i, vector in enumerate(vectors)
    ]
    return JsonResponse(
        {
            "object": "list",
            "model": service.name,
            "data": data,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _written(vector: NDArray[np.float32], form: str) -> Any:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    return [float(value) for value in vector]
