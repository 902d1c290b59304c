"""What one run measures: which situations, who takes part in each, how long each turn is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from bench import roster
from bench.contestants import Cell

_SERVERS_OF_IDS = (roster.NATIVE, roster.FLOAT32, roster.CORAL, roster.CORAL_FLOAT32)
_SERVERS_OF_TEXTS = (
    roster.NATIVE,
    roster.FLOAT32,
    "infinity torch",
    "infinity optimum",
    "text-embeddings-inference",
)
_GROWING_CLIENTS = (roster.NATIVE, roster.PATIENT, roster.CORAL)
_GROWING_TEXTS = (roster.NATIVE, roster.CORAL)
_SERVERS = (*_SERVERS_OF_IDS, roster.PADDED, *_SERVERS_OF_TEXTS, *_GROWING_CLIENTS)
_ENGINES = tuple(name for name in roster.NAMES if name not in _SERVERS)
_ALONE = (roster.NATIVE, roster.FLOAT32, roster.CORAL)
_OPEN = (roster.NATIVE, roster.FLOAT32, roster.CORAL)

GROUPS = ("alone", "ids-1", "ids-16", "texts-1", "texts-16", "offline", "open", "clients", "texts")
"""The parts of a run, in their order; each has its own table. One client comes first: its memory is what grows."""
GROWING_CLIENTS = (32, 100, 320, 1000)
GROWING_TEXTS = (1, 4, 16, 64, 256, 512)
OPEN_LOADS = (0.5, 1.0, 2.0)
"""Of what the first peer does in its closed loop, so that all get the very same load."""
DEADLINE_SECONDS = 0.25
_SMALL_GROUP_ROUNDS = 2
# Until a thousand clients have found their places, those that were sent away at first among them.
_LEAD_SECONDS = 5.0
# A turn of a second is one or two of a slow server's batches of passages: its rate was off by a tenth, either way. Of
# three rounds the median of what is nearest to its floor came out at 1.29 and at 1.34 within two hours.
_LONGER = {"ids-1": 4}
_OFTENER = {"ids-1": 2}


@dataclass(frozen=True, slots=True)
class Options:
    """What the user chose.

    Attributes:
        seconds: Of each turn.
        rounds: In each of which everybody has a turn.
        only: Contestants whose name begins with one of these; all where there is none.
    """

    mixes: Sequence[str]
    groups: Sequence[str]
    seconds: float
    rounds: int
    only: Sequence[str] = ()

    def wants(self, name: str) -> bool:
        """Whether a contestant takes part."""
        invited = not self.only or any(name.lower().startswith(one.lower()) for one in self.only)
        return invited and any(name in (*entrants(group), *_beside(group)) for group in self.groups)


@dataclass(frozen=True, slots=True)
class Stage:
    """Cells whose turns alternate with each other, and who plays them.

    Attributes:
        load: Of an open loop, as a multiple of what the first peer does; set to requests per second when known.
    """

    cells: Sequence[Cell]
    names: Sequence[str]
    rounds: int
    seconds: float
    load: float | None = None


def _beside(group: str) -> Sequence[str]:
    """Who has no turns in a group, and is measured between its rounds."""
    return (roster.COMPILED, roster.COMPILED_FLOAT32) if group == "alone" else ()


def entrants(group: str) -> Sequence[str]:
    """Who takes part in a group."""
    return {
        "ids-1": (*_SERVERS_OF_IDS, roster.PADDED),
        "ids-16": (*_SERVERS_OF_IDS, roster.COMPILED, roster.COMPILED_FLOAT32),
        "texts-1": _SERVERS_OF_TEXTS,
        "texts-16": _SERVERS_OF_TEXTS,
        "offline": _ENGINES,
        "open": _OPEN,
        "alone": _ALONE,
        "clients": _GROWING_CLIENTS,
        "texts": _GROWING_TEXTS,
    }[group]


def stages(options: Options) -> list[Stage]:
    """All of a run, in order; what is compared with each other lies in one stage."""
    found = []
    for group in options.groups:
        found += _stages(group, options)
    return found


def request_count(cell: Cell) -> int:
    """How many different requests of a cell are made: about two thousand texts, and some of each size."""
    return max(40, 2000 // cell.texts)


def _stages(group: str, options: Options) -> list[Stage]:
    names = [name for name in entrants(group) if options.wants(name)]
    few = min(options.rounds, _SMALL_GROUP_ROUNDS)
    if group == "clients":
        cells = [Cell(group, "products", clients=clients, lead_seconds=_LEAD_SECONDS) for clients in GROWING_CLIENTS]
        return [Stage(cells, names, options.rounds, 4 * options.seconds)]
    if group == "texts":
        cells = [Cell(group, "products", texts=texts, clients=_clients_of(texts)) for texts in GROWING_TEXTS]
        return [Stage(cells, names, few, 2 * options.seconds)]
    if group == "open":
        mixes = [mix for mix in options.mixes if mix in ("products", "bimodal")] or options.mixes[:1]
        return [
            Stage([Cell(group, mix, deadline_seconds=DEADLINE_SECONDS)], names, few, 1.5 * options.seconds, load)
            for mix in mixes
            for load in OPEN_LOADS
        ]
    mixes = options.mixes
    if group in ("texts-16", "alone"):
        mixes = ["products"] if "products" in options.mixes else options.mixes[:1]
    base = Cell(group, "", texts=16 if group.endswith("16") else 1, input="texts" if "texts" in group else "ids")
    clients = {"alone": 1, "ids-16": 8, "texts-16": 8}.get(group, 32)
    seconds = _LONGER.get(group, 1) * options.seconds
    rounds = _OFTENER.get(group, 1) * options.rounds
    return [Stage([replace(base, mix=mix, clients=clients)], names, rounds, seconds) for mix in mixes]


def _clients_of(texts: int) -> int:
    """Fewer of those that ask for more, so that the queue stays below what a server refuses."""
    return max(2, min(32, 512 // texts))
