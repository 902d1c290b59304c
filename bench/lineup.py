"""Starts everybody who takes part, and says who could not come, and why."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import bare_engines, checks, roster, servers
from bench.contestants import Contestant, Server
from bench.engine_process import BareEngine, EngineError
from bench.peers import PeerUnavailableError
from bench.place import Place


@dataclass(slots=True)
class About:
    """What is said of one contestant.

    Attributes:
        lowest_cosine: To sentence-transformers in float32, of the fixed texts; None until checked.
        pooled_without_special: The same to the model pooled without [CLS] and [SEP]; only where the peer does so.
        idle_cpu: Cores that it takes while it has nothing to do.
        ways: How a bare engine is used for each mix, as found.
    """

    name: str
    kind: str
    what: str
    lowest_cosine: float | None = None
    pooled_without_special: float | None = None
    idle_cpu: float | None = None
    ways: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Lineup:
    """Who takes part."""

    contestants: dict[str, Contestant] = field(default_factory=dict)
    about: dict[str, About] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    embedders: dict[str, checks.Embed] = field(default_factory=dict)

    def add(self, contestant: Contestant, about: About, embed: checks.Embed | None = None) -> None:
        """One more."""
        self.contestants[contestant.name] = contestant
        self.about[contestant.name] = about
        if embed is not None:
            self.embedders[contestant.name] = embed

    async def ask(self, engine: BareEngine, where: str, what: str, **arguments: Any) -> Any:
        """An engine's reply to one command; None where there was none, and the engine is dismissed."""
        try:
            return await engine.ask(what, **arguments)
        except (EngineError, TimeoutError) as error:
            self.dismiss(engine.name, where, error)
            return None

    def dismiss(self, name: str, where: str, error: Exception) -> None:
        """It takes no part any more; an engine that does not answer takes nothing from the others either."""
        gone = self.contestants.pop(name)
        self.absent[name] = f"it ended {where}: {str(error) or 'it did not answer in time'}"
        if isinstance(gone, BareEngine):
            gone.close()

    @property
    def servers(self) -> list[Server]:
        """Of the contestants."""
        return [one for one in self.contestants.values() if isinstance(one, Server)]

    @property
    def engines(self) -> list[BareEngine]:
        """Of the contestants."""
        return [one for one in self.contestants.values() if isinstance(one, BareEngine)]

    def described(self) -> list[dict[str, Any]]:
        """For the results."""
        return [asdict(one) for one in self.about.values()]


async def assemble(
    stack: contextlib.ExitStack, place: Place, wanted: Callable[[str], bool], tell: Callable[[str], None]
) -> Lineup:
    """Starts all that are wanted, one after the other."""
    lineup = Lineup()
    exported = _exported(place, lineup) if any(map(wanted, (*roster.RUNTIMES, "infinity optimum"))) else None
    # They load while the servers start.
    engines = [
        stack.enter_context(contextlib.closing(BareEngine(name, command, place.log(name), place.threads)))
        for name, command in bare_engines.commands(place, exported).items()
        if wanted(name) or name == roster.REFERENCE
    ]
    for name, start in servers.starts(place, exported).items():
        if wanted(name):
            tell(f"starting {name}")
            _enter(stack, lineup, name, start)
    for engine in engines:
        tell(f"starting {engine.name}")
        try:
            await engine.wait()
        except (EngineError, TimeoutError) as error:
            lineup.absent[engine.name] = str(error) or "it was not loaded in time"
            engine.close()
        else:
            lineup.add(engine, About(engine.name, "engine", roster.WHAT[engine.name]))
    return lineup


def _exported(place: Place, lineup: Lineup) -> Path | None:
    """The model as ONNX; without it those who need it are absent."""
    try:
        return bare_engines.export(place)
    except PeerUnavailableError as error:
        lineup.absent.update(dict.fromkeys(roster.RUNTIMES, str(error)))
        return None


def _enter(stack: contextlib.ExitStack, lineup: Lineup, name: str, start: servers.Start) -> None:
    try:
        server, embed = start(stack)
    except PeerUnavailableError as error:
        lineup.absent[name] = str(error)
        return
    # A process that is paused would not end.
    stack.callback(server.wake)
    lineup.add(server, About(name, "server", roster.WHAT[name]), embed)
