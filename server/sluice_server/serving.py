"""What both APIs do: check, admit, tokenize, compute, finish. One visible flow for texts and for ids."""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from sluice_server import postprocess
from sluice_server.backend import ModelInfo
from sluice_server.engine_port import Computation, EnginePort
from sluice_server.errors import InvalidRequestError, NotReadyError
from sluice_server.postprocess import OutputDtype
from sluice_server.requests import Terms, TokenRows
from sluice_server.tokenizer import TextTokenizer, Truncation
from sluice_server.validation import RequestLimits, check_dimensions, check_input_count, check_rows


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """What a caller asks of every input.

    Attributes:
        prompt_name: One of the model's own, put before each text; the model's default where it is None, and nothing
            where it is empty.
        truncate: What happens to an input that is too long.
        dimensions: Keep the first so many; None keeps all.
        normalize: Rows of unit length.
        dtype: Of the reply.
        terms: What of it concerns the engine.
    """

    prompt_name: str | None = None
    truncate: Truncation = Truncation.END
    dimensions: int | None = None
    normalize: bool = True
    dtype: OutputDtype = "float32"
    terms: Terms = field(default_factory=Terms)


@dataclass(frozen=True, slots=True)
class Embedded:
    """The answer.

    Attributes:
        embeddings: (n, dimensions), contiguous, in the type that was asked for.
        tokens_used: Computed for this request, padding excluded.
        drain_ms: Of what was queued when it was answered; None while unknown.
        truncated: Positions of the inputs that were cut.
    """

    embeddings: NDArray[np.generic]
    tokens_used: int
    tokenize_ms: float
    queue_ms: float
    compute_ms: float
    total_ms: float
    drain_ms: float | None
    truncated: Sequence[int] = field(default=())


class AnswerObserver(Protocol):
    """Told of every answer."""

    def observe(self, embedded: Embedded, options: EmbedOptions) -> None:
        """The request that the current task serves was computed."""


class EmbeddingService:
    """Serves requests with the engine and, once it is loaded, the model's tokenizer.

    Args:
        engine: Admission and computation.
        limits: Of one request.
        tokenizer_threads: At most so many texts requests are tokenized at once.
    """

    def __init__(self, engine: EnginePort, limits: RequestLimits, tokenizer_threads: int) -> None:
        self.engine = engine
        self.limits = limits
        self._tokenizer: TextTokenizer | None = None
        self._observer: AnswerObserver | None = None
        self._threads = ThreadPoolExecutor(tokenizer_threads, thread_name_prefix="tokenizer")

    def observe(self, observer: AnswerObserver) -> None:
        """Tells the observer of every answer from now on."""
        self._observer = observer

    def set_tokenizer(self, tokenizer: TextTokenizer) -> None:
        """Called once the model is loaded, before the gate opens."""
        self._tokenizer = tokenizer

    def embed_ids(self, rows: TokenRows, options: EmbedOptions) -> Awaitable[Embedded]:
        """Embeds rows of token ids; what is returned must be awaited.

        Raises:
            SluiceError: One of errors.py, at once or when it is awaited; nothing stays reserved.
        """
        started = time.perf_counter()
        info = self.engine.info
        if info is None:
            return self._refuse_unready()
        check_rows(rows, self.limits, vocab_size=info.vocab_size, max_tokens_per_row=info.max_position_tokens)
        check_dimensions(options.dimensions, info.dimension)
        return self._embed_rows(rows, self.engine.compute(rows, options.terms), options, started)

    async def embed_texts(self, texts: Sequence[str], options: EmbedOptions) -> Embedded:
        """Embeds texts; an estimate is reserved before, and settled after, they are tokenized.

        Raises:
            SluiceError: One of errors.py; nothing stays reserved.
        """
        started = time.perf_counter()
        info = self.engine.info or await self._refuse_unready()
        tokenizer = self._tokenizer
        if tokenizer is None:
            raise NotReadyError("the tokenizer is not loaded yet")
        check_input_count(len(texts), self.limits)
        check_dimensions(options.dimensions, info.dimension)
        prompt = _prompt(info, options.prompt_name)
        terms = options.terms
        # Admitted before it is tokenized, wherever the engine is: a refusal costs no tokens, what waits for a thread is
        # bounded by what may be reserved, and the drain estimate knows of it.
        reservation = await self.engine.reserve(tokenizer.estimate_tokens(texts, prompt), terms)
        begun = time.perf_counter()
        try:
            encoded = await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: tokenizer.encode(texts, prompt=prompt, truncate=options.truncate),
            )
            rows = TokenRows(encoded.token_ids, encoded.lengths)
            if rows.total_tokens > self.limits.max_tokens:
                raise InvalidRequestError(
                    f"{rows.total_tokens} tokens in one request; expected at most {self.limits.max_tokens}"
                )
        except BaseException:
            reservation.release()
            raise
        tokenize_ms = 1000 * (time.perf_counter() - begun)
        computation = await self.engine.compute(rows, terms, reservation)
        cut = np.flatnonzero(encoded.truncated).tolist()
        embedded = _answer(rows, computation, options, started=started, tokenize_ms=tokenize_ms, truncated=cut)
        return self._told(embedded, options)

    async def _embed_rows(
        self, rows: TokenRows, computing: Awaitable[Computation], options: EmbedOptions, started: float
    ) -> Embedded:
        return self._told(_answer(rows, await computing, options, started=started, tokenize_ms=0.0), options)

    def close(self) -> None:
        """Ends the tokenizer threads."""
        self._threads.shutdown(cancel_futures=True)

    def _told(self, embedded: Embedded, options: EmbedOptions) -> Embedded:
        if self._observer is not None:
            self._observer.observe(embedded, options)
        return embedded

    async def _refuse_unready(self) -> NoReturn:
        """Before the model is known, and when the server has failed, the engine's reason is the answer."""
        (await self.engine.reserve(0, Terms())).release()
        raise NotReadyError("the model is not loaded yet")


def _prompt(info: ModelInfo, named: str | None) -> str | None:
    name = info.default_prompt_name if named is None else named
    if name is None or (name == "" and "" not in info.prompts):
        return None
    if name not in info.prompts:
        known = ", ".join(sorted(info.prompts)) or "none: this model has no prompts"
        raise InvalidRequestError(f"prompt_name={name!r}; expected one of: {known}")
    return info.prompts[name]


def _answer(
    rows: TokenRows,
    computation: Computation,
    options: EmbedOptions,
    *,
    started: float,
    tokenize_ms: float,
    truncated: Sequence[int] = (),
) -> Embedded:
    embeddings = postprocess.finish(
        computation.computed, dimensions=options.dimensions, normalize=options.normalize, dtype=options.dtype
    )
    return Embedded(
        embeddings=embeddings,
        tokens_used=rows.total_tokens,
        tokenize_ms=tokenize_ms,
        queue_ms=computation.queue_ms,
        compute_ms=computation.compute_ms,
        total_ms=1000 * (time.perf_counter() - started),
        drain_ms=computation.drain_ms,
        truncated=truncated,
    )
