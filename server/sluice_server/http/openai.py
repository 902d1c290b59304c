"""POST /v1/embeddings, as OpenAI's clients send it."""

import asyncio
import base64
import json
from typing import Annotated, Literal

import numpy as np
from aiohttp import web
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from sluice_server.errors import InvalidRequestError, SluiceError
from sluice_server.http.refusals import refusal
from sluice_server.requests import TokenRows
from sluice_server.serving import NO_DEADLINE, Embedded, EmbeddingService, EmbedOptions

Ids = Annotated[list[StrictInt], Field(min_length=1)]


class EmbeddingsRequest(BaseModel):
    """The body; what OpenAI's clients send beside these is ignored."""

    model_config = ConfigDict(extra="ignore")

    input: StrictStr | Annotated[list[StrictStr], Field(min_length=1)] | Ids | Annotated[list[Ids], Field(min_length=1)]
    model: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1)] | None = None


def routes(service: EmbeddingService) -> list[web.RouteDef]:
    """The one route."""

    async def embeddings(request: web.Request) -> web.Response:
        try:
            asked = await _parse(request)
            options = EmbedOptions(dimensions=asked.dimensions, deadline=_deadline(request))
            embedded = await _embed(service, asked, options)
        except SluiceError as error:
            return refusal(error)
        return web.json_response(_body(asked, embedded, service))

    return [web.post("/v1/embeddings", embeddings)]


async def _parse(request: web.Request) -> EmbeddingsRequest:
    try:
        return EmbeddingsRequest.model_validate(json.loads(await request.read()))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"the body is not JSON: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        raise InvalidRequestError(
            f"{place}: {first['msg']}; input is a text, texts, token ids, or rows of them"
        ) from error


def _deadline(request: web.Request) -> float:
    """`x-request-timeout-ms`, where a caller sends it: HTTP has no deadline of its own."""
    text = request.headers.get("x-request-timeout-ms")
    if text is None:
        return NO_DEADLINE
    try:
        seconds = float(text) / 1000
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise InvalidRequestError(f"x-request-timeout-ms={text!r}; expected a positive number")
    return asyncio.get_running_loop().time() + seconds


async def _embed(service: EmbeddingService, asked: EmbeddingsRequest, options: EmbedOptions) -> Embedded:
    given = [asked.input] if isinstance(asked.input, str) else asked.input
    if isinstance(given[0], str):
        return await service.embed_texts(given, options)
    rows = [given] if isinstance(given[0], int) else given
    return await service.embed_ids(_rows(rows), options)


def _rows(rows: list[list[int]]) -> TokenRows:
    ids = np.array([one for row in rows for one in row], dtype=object)
    if any(not 0 <= one < 2**31 for one in ids):
        raise InvalidRequestError("a token id is not in the vocabulary; expected 0 or more")
    return TokenRows(ids.astype(np.int32), np.array([len(row) for row in rows], dtype=np.int32))


def _body(asked: EmbeddingsRequest, embedded: Embedded, service: EmbeddingService) -> dict[str, object]:
    info = service.engine.info
    usage = {"prompt_tokens": embedded.tokens_used, "total_tokens": embedded.tokens_used}
    data = [
        {"object": "embedding", "index": index, "embedding": _encoded(row, asked.encoding_format)}
        for index, row in enumerate(embedded.embeddings)
    ]
    return {
        "object": "list",
        "data": data,
        "model": asked.model or (info.uri if info else ""),
        "usage": usage,
    }


def _encoded(row: NDArray[np.generic], encoding: str) -> list[float] | str:
    return base64.b64encode(row.tobytes()).decode() if encoding == "base64" else row.tolist()
