"""`python -m bench.soak MODEL [SECONDS]`: at capacity, with callers that leave at random; memory must stay flat."""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import uvloop

from bench.load import Generator, requests
from bench.process import ServerProcess, server

_CANCEL_SHARE = 0.2
_SAMPLE_SECONDS = 10
_RUN_UP_SECONDS = 60


def main() -> None:
    """Prints the figures as JSON."""
    model = str(Path(sys.argv[1]).resolve())
    seconds = float((sys.argv[2:] or ["600"])[0])
    with server(model) as process:
        print(json.dumps(uvloop.run(measure(process, seconds)), indent=1))


async def measure(process: ServerProcess, seconds: float) -> dict[str, Any]:
    """32 clients of mixed lengths, a fifth of whose requests are cancelled while they wait or are computed."""
    made = [one for mix in ("queries", "products", "bimodal") for one in requests(mix, 700, texts=4)]
    generator, rss, codes = Generator(process.target), list[float](), Counter[str]()
    load = asyncio.create_task(generator.closed_loop(made, clients=32, seconds=seconds, cancel_share=_CANCEL_SHARE))
    while not load.done():
        await asyncio.wait({load}, timeout=_SAMPLE_SECONDS)
        rss.append(process.rss_mib())
        codes.update(one.code for one in generator.answers)
        generator.answers.clear()
        if len(rss) % 6 == 0:
            print(f"{len(rss) * _SAMPLE_SECONDS:5d} s  RSS {rss[-1]:.0f} MiB  {dict(codes)}", file=sys.stderr)
    await load
    await generator.close()
    after_run_up = rss[_RUN_UP_SECONDS // _SAMPLE_SECONDS - 1]
    document = process.health()
    names = ("admitted", "rejected", "expired", "computed")
    return {
        "seconds": seconds,
        "answers": codes,
        "rss_mib_after_the_first_minute": after_run_up,
        "rss_mib_at_the_end": rss[-1],
        "growth": rss[-1] / after_run_up - 1,
        "most_rss_mib": max(rss),
        "queued_tokens_at_the_end": document["queued_tokens"],
        **{f"{name}_tokens": document[f"{name}_tokens_total"] for name in names},
    }


if __name__ == "__main__":
    main()
