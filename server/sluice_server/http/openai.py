"""POST /v1/embeddings, as OpenAI's clients send it."""

import asyncio
from itertools import chain

import numpy as np
from aiohttp import web

from sluice_server.errors import InvalidRequestError, SluiceError
from sluice_server.http.answer import written
from sluice_server.http.body import EmbeddingsRequest, IdRows, inputs, parse
from sluice_server.http.counting import check_counts
from sluice_server.http.reading import read_body
from sluice_server.http.refusals import refusal
from sluice_server.requests import NO_DEADLINE, Terms, TokenRows
from sluice_server.serving import Embedded, EmbeddingService, EmbedOptions

_INT32_END = 2**31


def routes(service: EmbeddingService) -> list[web.RouteDef]:
    """The one route."""

    async def embeddings(request: web.Request) -> web.Response:
        try:
            body = await read_body(request)
            check_counts(body, service.limits)
            asked = parse(body)
            terms = Terms(deadline=_deadline(request), is_repeated=_is_repeated(request))
            options = EmbedOptions(dimensions=asked.dimensions, terms=terms)
            embedded = await _embed(service, asked, options)
        except SluiceError as error:
            return refusal(error)
        info = service.engine.info
        model = asked.model or (info.uri if info else "")
        answer = await written(embedded, encoding=asked.encoding_format, model=model)
        return web.Response(body=answer, content_type="application/json", charset="utf-8")

    return [web.post("/v1/embeddings", embeddings)]


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


def _is_repeated(request: web.Request) -> bool:
    """OpenAI's own clients number their retries."""
    return request.headers.get("x-stainless-retry-count", "0") not in {"", "0"}


async def _embed(service: EmbeddingService, asked: EmbeddingsRequest, options: EmbedOptions) -> Embedded:
    given = inputs(asked.input)
    if isinstance(given, IdRows):
        info = service.engine.info
        return await service.embed_ids(_rows(given, info.vocab_size if info else _INT32_END), options)
    return await service.embed_texts(given, options)


def _rows(given: IdRows, vocab_size: int) -> TokenRows:
    """JSON's integers have no bound; the rows' have."""
    ids = list(chain.from_iterable(given.rows))
    for one in (min(ids), max(ids)):
        if not 0 <= one < vocab_size:
            raise InvalidRequestError(f"token id {one} is not in the vocabulary; expected 0 to {vocab_size - 1}")
    return TokenRows(np.array(ids, dtype=np.int32), np.array([len(row) for row in given.rows], dtype=np.int32))
