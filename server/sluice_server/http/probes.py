"""What the kubelet, the operator and a person ask."""

from aiohttp import web

from sluice_server import __version__, health
from sluice_server.engine import Engine
from sluice_server.metrics import Metrics
from sluice_server.validation import RequestLimits

# One batch takes milliseconds: a device silent for so long will not speak again.
_HUNG_AFTER_SECONDS = 120.0


def routes(engine: Engine, metrics: Metrics, limits: RequestLimits) -> list[web.RouteDef]:
    """Every probe; all of them answer without a token.

    | path      | 200 while                                | 503 while                       |
    |-----------|------------------------------------------|---------------------------------|
    | /startupz | serving was reached                      | before                          |
    | /readyz   | serving                                  | otherwise                       |
    | /livez    | otherwise                                | failed, or the device hangs     |
    | /health   | always: the truth stands in the document |                                 |

    Overload fails none of them: shedding is quicker, and the operator's gate sees the whole fleet.
    """

    async def health_document(_: web.Request) -> web.Response:
        return web.json_response(health.document(engine.facts()))

    async def startup(_: web.Request) -> web.Response:
        return _probe(ok=engine.lifecycle.has_served, said=engine.phase)

    async def ready(_: web.Request) -> web.Response:
        return _probe(ok=engine.phase.name == "serving", said=engine.phase)

    async def live(_: web.Request) -> web.Response:
        silent = engine.running_seconds()
        hung = health.Phase("failed", f"the device has been at one batch for {silent:.0f} s")
        said = hung if silent > _HUNG_AFTER_SECONDS else engine.phase
        return _probe(ok=said.name != "failed", said=said)

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def info(_: web.Request) -> web.Response:
        return web.json_response(_info(engine, limits))

    return [
        web.get("/health", health_document),
        web.get("/startupz", startup),
        web.get("/readyz", ready),
        web.get("/livez", live),
        web.get("/metrics", exposition),
        web.get("/info", info),
    ]


def _probe(*, ok: bool, said: health.Phase) -> web.Response:
    text = said.name if said.reason is None else f"{said.name}: {said.reason}"
    return web.Response(text=text + "\n", status=200 if ok else 503)


def _info(engine: Engine, limits: RequestLimits) -> dict[str, object]:
    info = engine.info
    known = (
        {
            "model_uri": info.uri,
            "model_revision": info.revision,
            "embedding_dimension": info.dimension,
            "max_input_tokens": info.max_input_tokens,
            "dtype": info.dtype,
            "device": info.device,
            "layout": info.layout,
            "execution": engine.backend.execution if engine.backend else None,
            "pooling": info.pooling,
            "prompts": info.prompts,
            "default_prompt_name": info.default_prompt_name,
        }
        if info
        else {}
    )
    return {
        "version": __version__,
        "phase": engine.phase.name,
        "model_fingerprint": engine.fingerprint,
        "max_inputs_per_request": limits.max_inputs,
        "max_tokens_per_request": limits.max_tokens,
        **known,
    }
