"""Where in its life the server is, who is told, and whether it takes work now."""

import logging
from collections.abc import Callable

from sluice_server.errors import DrainingError, NotReadyError, ServerFailedError
from sluice_server.health import Phase

logger = logging.getLogger(__name__)


class Lifecycle:
    """Keeps the phase: starting, downloading, loading, warming, serving, draining; or failed, for good."""

    def __init__(self) -> None:
        self.phase = Phase("starting", "the server starts")
        self._accepts = True
        self._has_served = False
        self._watchers: list[Callable[[Phase], None]] = []

    def watch(self, watcher: Callable[[Phase], None]) -> None:
        """Calls the watcher at every change, and now."""
        self._watchers.append(watcher)
        watcher(self.phase)

    def enter(self, phase: Phase) -> None:
        """Notes a step; a failed server stays failed, and one that ends only may fail."""
        if self.phase.name == "failed" or (self.phase.name == "draining" and phase.name != "failed"):
            return
        if phase.name != self.phase.name:
            sentence = f"phase {phase.name}: {phase.reason}" if phase.reason else f"phase {phase.name}"
            logger.info(sentence, extra={"phase": phase.name})
        self.phase = phase
        self._has_served |= phase.name == "serving"
        for watcher in self._watchers:
            watcher(phase)

    def begin_drain(self, reason: str) -> None:
        """The server will end: says so, and goes on serving until stop_accepting()."""
        self.enter(Phase("draining", reason))

    def stop_accepting(self) -> None:
        """From now on new work is refused; admitted work goes on."""
        self._accepts = False

    @property
    def has_served(self) -> bool:
        """The gate was open at some time."""
        return self._has_served

    def check_accepts(self) -> None:
        """Returns if new work is taken now.

        Raises:
            NotReadyError: The model is not warm yet.
            DrainingError: The server ends.
            ServerFailedError: It cannot serve any more.
        """
        match self.phase.name:
            case "serving":
                return
            case "draining":
                if not self._accepts:
                    raise DrainingError("the server is shutting down; another one takes new work")
            case "failed":
                raise ServerFailedError(f"the server has failed: {self.phase.reason}")
            case _:
                raise NotReadyError(f"the server is not ready yet: {self.phase.name}, {self.phase.reason}")
