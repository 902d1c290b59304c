"""The life of the server: wire the parts, load in the worker's thread, serve, drain, end."""

import asyncio
import functools
import gc
import logging
import signal
from collections.abc import Callable

from sluice_server import garbage
from sluice_server.backend import Backend, Batch, LaunchingBackend
from sluice_server.configuration import (
    batch_limits,
    engine_config,
    front_end_config,
    model_config,
    request_limits,
    secret,
    tls_files,
)
from sluice_server.cost import Measurement
from sluice_server.engine import Engine
from sluice_server.frontends.sizing import front_end_count, takes_gpu
from sluice_server.frontends.supervisor import FrontEnds
from sluice_server.health import Phase
from sluice_server.http.server import HttpServer
from sluice_server.jobs import BatchResult
from sluice_server.local_engine import LocalEngine
from sluice_server.model.config import LoadedModel, ModelConfig
from sluice_server.observability.telemetry import Telemetry
from sluice_server.rpc.server import GrpcServer
from sluice_server.serving import EmbeddingService
from sluice_server.settings import Settings
from sluice_server.threads import available_cpus
from sluice_server.warm_up import warm_up_batches
from sluice_server.worker import Worker, WorkerCallbacks

logger = logging.getLogger(__name__)

Loader = Callable[[ModelConfig, Callable[[str, str], None]], LoadedModel]


class Server:
    """One process's server.

    Args:
        settings: Everything that it is told.
        load: Makes the model; called in the worker's thread.
    """

    def __init__(self, settings: Settings, load: Loader) -> None:
        self._settings = settings
        self._load = load
        self._loop: asyncio.AbstractEventLoop | None = None
        self._worker = Worker(self._load_model, self._warm_up_batches, self._callbacks())
        self.engine = Engine(engine_config(settings), self._worker.submit)
        self.service = EmbeddingService(LocalEngine(self.engine), request_limits(settings), settings.tokenizer_threads)
        self.telemetry = Telemetry(self.engine, settings)
        self.service.observe(self.telemetry.observer)
        self._health_changes: asyncio.Queue[bool] = asyncio.Queue()
        self._front_ends: FrontEnds | None = None
        self.grpc_port = self.http_port = 0
        self.on_listening: Callable[[], None] = lambda: None

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until the event is set, then drains.

        Raises:
            OSError: An address cannot be listened on.
        """
        settings = self._settings
        self._loop = asyncio.get_running_loop()
        grpc_server = self._grpc_server()
        http_server = HttpServer(
            self.engine,
            self.service,
            self.telemetry.metrics,
            max_body_bytes=settings.max_message_bytes,
            token=secret(settings),
            observer=self.telemetry.observer,
        )
        self.http_port = await http_server.start(settings.grpc_host, settings.http_health_port)
        try:
            self.grpc_port = await grpc_server.start(f"{settings.grpc_host}:{settings.grpc_port}")
        except OSError:
            await grpc_server.stop(grace_seconds=0)
            raise
        logger.info("listening", extra={"grpc_port": self.grpc_port, "http_port": self.http_port})
        self.on_listening()
        self.engine.lifecycle.watch(lambda phase: self._health_changes.put_nowait(phase.name == "serving"))
        self._worker.start()
        self.telemetry.start()
        try:
            async with asyncio.TaskGroup() as group:
                follower = group.create_task(self._follow_phase(grpc_server))
                await stop.wait()
                await self._drain()
                follower.cancel()
            # Whoever watches hears it before the connections end, however short the drain was.
            await grpc_server.set_serving(serving=False)
        finally:
            await grpc_server.stop(grace_seconds=1)
            await http_server.stop()
            self.service.close()
            await asyncio.gather(asyncio.to_thread(self._worker.stop, 5.0), self.telemetry.stop())

    def _grpc_server(self) -> GrpcServer | FrontEnds:
        """In this process, or in front of it."""
        settings, observer = self._settings, self.telemetry.observer
        count = front_end_count(settings.front_ends, on_gpu=takes_gpu(settings.device), cpus=available_cpus())
        if count:
            self._front_ends = FrontEnds(self.engine, front_end_config(settings), count, observer.note)
            self.telemetry.metrics.tell_of(self._front_ends)
            return self._front_ends
        return GrpcServer(
            self.service,
            max_message_bytes=settings.max_message_bytes,
            max_connection_age_seconds=settings.max_connection_age_seconds,
            tls=tls_files(settings),
            token=secret(settings),
            observer=observer,
        )

    async def _follow_phase(self, grpc_server: GrpcServer | FrontEnds) -> None:
        """GRPC health says what the phase says, in its order."""
        while True:
            await grpc_server.set_serving(serving=await self._health_changes.get())

    async def _drain(self) -> None:
        """Says so, keeps serving while the word spreads, then finishes what was admitted."""
        settings = self._settings
        if self.engine.phase.name != "serving":
            self.engine.lifecycle.begin_drain("the server shuts down before it served")
            self.engine.lifecycle.stop_accepting()
            return
        self.engine.lifecycle.begin_drain("the server shuts down and finishes what it admitted")
        await asyncio.sleep(settings.shutdown_propagation_seconds)
        self.engine.lifecycle.stop_accepting()
        try:
            async with asyncio.timeout(settings.shutdown_drain_seconds):
                await self.engine.wait_idle()
        except TimeoutError:
            logger.warning("admitted work was not finished in time", extra={"tokens": self.engine.reserved_tokens})

    # --- in the worker's thread -------------------------------------------------------------------

    def _load_model(self) -> Backend:
        loaded = self._load(model_config(self._settings), self._report_loading)
        self.service.set_tokenizer(loaded.tokenizer)
        if self._front_ends is not None:
            self._on_loop(self._front_ends.set_tokenizer, loaded.tokenizer.described())
        return loaded.backend

    def _report_loading(self, phase: str, sentence: str) -> None:
        self._on_loop(self.engine.lifecycle.enter, Phase(phase, sentence))  # type: ignore[arg-type]

    def _warm_up_batches(self, backend: Backend) -> list[Batch]:
        if isinstance(backend, LaunchingBackend):
            return backend.warm_up_batches(self._settings.buckets)
        settings = self._settings
        return warm_up_batches(backend.info, settings.buckets, settings.batch_sizes, settings.max_tokens_per_batch)

    def _callbacks(self) -> WorkerCallbacks:
        return WorkerCallbacks(
            on_phase=lambda name, reason, step, steps: self._on_loop(
                self.engine.lifecycle.enter,
                Phase(name, reason, step, steps),  # type: ignore[arg-type]
            ),
            on_ready=self._ready,
            on_result=lambda number, result: self._on_loop(self._on_result, number, result),
            on_failure=lambda reason: self._on_loop(self.engine.failed, reason),
        )

    def _on_result(self, number: int, result: BatchResult) -> None:
        """On the loop; who waits for the batch is answered before it is counted."""
        self.engine.on_result(number, result)
        asyncio.get_running_loop().call_soon(self.telemetry.observe_batch, result)

    def _ready(self, backend: Backend, fingerprint: str, timings: list[Measurement]) -> None:
        limits = batch_limits(self._settings, backend)
        self._on_loop(self.engine.ready, backend, fingerprint, timings, limits)

    def _on_loop(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None, "the worker starts after the loop"
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(functools.partial(function, *arguments))


async def serve(settings: Settings, load: Loader) -> None:
    """Runs a server until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings, load)
    server.engine.lifecycle.watch(keep_what_the_start_made)
    with garbage.looked_for_rarely():
        await server.run(stop)


def keep_what_the_start_made(phase: Phase) -> None:
    """Takes libraries and model out of the garbage collector's sight once they are loaded; of a process of its own.

    They are a million objects, none of which is ever garbage; to look through them again took 0.3 s every few seconds
    under load, in which nothing was answered and the device had no work.
    """
    if phase.name == "warming" and not gc.get_freeze_count():
        gc.collect()
        gc.freeze()
