"""Reading a body: never more than is allowed, never longer than is allowed, and only in codings we know."""

import asyncio

from aiohttp import web

# What aiohttp decodes by itself; br and zstd are refused before they come here, unless it can decode them.
_CODINGS = ("identity", "gzip", "deflate", "br", "zstd")
_BODY_WITHIN_SECONDS = 60.0
# What is left of such a body cannot be told from a next request.
_CLOSE = {"Connection": "close"}


async def read_body(request: web.Request) -> bytes:
    """The whole body, decoded.

    Raises:
        web.HTTPException: 408 too slow, 413 too large, 415 an unknown coding, 400 not in the coding that it names.
        ConnectionError: The caller left.
    """
    coding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in _CODINGS:
        raise web.HTTPUnsupportedMediaType(text=f"Content-Encoding={coding!r}; expected gzip, deflate or none")
    if (request.content_length or 0) > request.client_max_size:
        raise web.HTTPRequestEntityTooLarge(request.client_max_size, request.content_length or 0)
    try:
        async with asyncio.timeout(_BODY_WITHIN_SECONDS):
            return await request.read()
    except web.RequestPayloadError as error:
        message = f"the body cannot be decoded; expected Content-Encoding {coding}"
        raise web.HTTPBadRequest(text=message, headers=_CLOSE) from error
    except TimeoutError:
        message = f"the body did not come within {_BODY_WITHIN_SECONDS:.0f} s"
        raise web.HTTPRequestTimeout(text=message, headers=_CLOSE) from None
