"""The page of results, made of the results file alone. Pure."""

from bench import outcome, roster, tables, targets
from bench.outcome import Result

_TITLES = {
    "ids-1": "32 clients, one text of token ids per request",
    "ids-16": "8 clients, 16 texts of token ids per request",
    "texts-1": "32 clients, one text per request, as text",
    "texts-16": "8 clients, 16 texts per request, as text",
    "offline": "Without a server",
    "alone": "One client, one text of token ids per request",
}


def document(result: Result, folder: str = "") -> str:
    """The whole page, in Markdown; pictures and data lie in a folder beside it."""
    parts = [
        _HEAD.format(date=result["date"], minutes=result["seconds"] / 60, **_machine(result)),
        "## Asked for and seen\n\n" + tables.target_table(targets.targets(result)),
        "## Who takes part\n\n" + tables.contestant_table(result),
        _absent(result),
        *(_group(result, group) for group in _TITLES if outcome.cells(result, group)),
        _open(result),
        _growth(result),
        _pictures(result, folder),
        # Only the page beside the other pages knows where they are.
        _TAIL.format(folder=folder, elsewhere=_ELSEWHERE if folder else ""),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _group(result: Result, group: str) -> str:
    found = outcome.cells(result, group)
    note = _NOTES.get(group, "")
    parts = [tables.cell_table(result, cell) for cell in found]
    if group == "offline":
        parts.append(_ways(result))
    if group == "alone":
        parts.append(_bare(result))
    return "\n\n".join([f"## {_TITLES[group]}", *([note] if note else []), *parts])


def _bare(result: Result) -> str:
    lines = [
        f"- {name}: {min(values):.2f} to {max(values):.2f} ms over the rounds"
        for name, values in result["bare_forward_ms"].items()
    ]
    return "Median of the bare forward of the same texts, one at a time:\n\n" + "\n".join(lines) if lines else ""


def _ways(result: Result) -> str:
    lines = [
        f"- {one['name']}: " + "; ".join(f"{mix}: {way['way']}" for mix, way in sorted(one["ways"].items()))
        for one in result["contestants"]
        if one["ways"]
    ]
    return "How each engine was used, the best of what was tried before:\n\n" + "\n".join(lines)


def _open(result: Result) -> str:
    found = outcome.cells(result, "open")
    if not found:
        return ""
    deadline = 1000 * found[0]["deadline_seconds"]
    return f"## Open loop, deadline {deadline:.0f} ms\n\n{_OPEN_NOTE}\n\n{tables.open_loop_table(result)}"


def _growth(result: Result) -> str:
    parts = [
        tables.growth_table(result, group, title)
        for group, title in (("clients", "clients"), ("texts", "texts per request"))
        if outcome.cells(result, group)
    ]
    steady = [cell["lead_seconds"] for cell in outcome.cells(result, "clients") if cell.get("lead_seconds")]
    note = _GROWTH_NOTE + (_STEADY_NOTE.format(lead=steady[0]) if steady else "")
    return "\n\n".join([f"## As work grows\n\n{note}", *parts]) if parts else ""


def _absent(result: Result) -> str:
    lines = [f"- {name}: {reason}" for name, reason in sorted(result["absent"].items())]
    return "### Absent\n\n" + "\n".join(lines) if lines else ""


def _pictures(result: Result, folder: str) -> str:
    """Of what was measured."""
    measured = {cell["group"] for cell in result["cells"]}
    lines = [f"![{text}]({folder}{name})" for name, text, groups in _PICTURES if measured & groups]
    return "\n\n".join(["## Pictures", *lines]) if lines else ""


def _machine(result: Result) -> dict[str, object]:
    machine = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    peers = ", ".join(f"{name} {version}" for name, version in machine["peer_versions"].items())
    naive = ", ".join(f"{mix} {value:.2f}" for mix, value in result["naive_padding"].items())
    options = result["options"]
    return {
        "cpu": machine["cpu"], "cores": machine["cores"], "flags": ", ".join(machine["flags"]) or "none of note",
        "memory": machine["memory_gib"], "python": machine["python"], "versions": versions, "peers": peers,
        "stolen": f"{result['stolen_share']:.1%}", "naive": naive, "padded": _padded(result),
        "rounds": options["rounds"], "turn": options["seconds"],
    }  # fmt: skip


def _padded(result: Result) -> str:
    """What Sluice's padded layout computed in the same closed loop, beside naive batching's."""
    seen = {
        cell["mix"]: outcome.seen(result, "ids-1", roster.PADDED, lambda turn: turn.padding, mix=cell["mix"])
        for cell in outcome.cells(result, "ids-1")
    }
    said = ", ".join(f"{mix} {spread.median:.2f}" for mix, spread in seen.items() if spread is not None)
    return f"; Sluice's own padded layout, with 32 clients: {said}" if said else ""


_PICTURES = (
    ("throughput.svg", "tokens per second", {"ids-1", "ids-16", "texts-1", "texts-16", "offline"}),
    ("goodput.svg", "goodput in an open loop", {"open"}),
    ("growth.svg", "as work grows", {"clients", "texts"}),
)
_NOTES = {
    "ids-1": "Each client asks again as soon as it is answered. The load generator runs on the same cores.",
    "ids-16": "coral-gpu-inference takes one length bucket per message, so a request to it is several messages, sent "
    "at once. Eight clients, as 32 would ask for more than servers admit. The packed engine without a server had its "
    "turns among theirs.",
    "texts-1": "infinity and text-embeddings-inference take no token ids; here everybody tokenizes. Their answers are "
    "asked for as base64, their cheapest form.",
    "offline": "No request, no network. Padded engines may sort two thousand texts by length beforehand, which no "
    "server can; the packed engine computes them as they come.",
}
_OPEN_NOTE = (
    "Requests come at random (Poisson) at the same rate for everybody, whatever the answers are; latency counts from "
    "the moment a request was due. What comes too late counts for nothing."
)
_GROWTH_NOTE = "Products. Larger requests come from fewer clients, so that the queue stays below the server's limit."
_STEADY_NOTE = (
    " As clients grow, each load goes on for {lead:g} s before what counts and does not end with it: a thousand"
    " clients ask for more at once than two cores compute in a turn. A server that refuses what it cannot do within its"
    " limit is asked again and again; the one that admits all shows what a long queue costs by itself."
)
_HEAD = """# Sluice beside its peers

`make bench` made this page and the pictures on {date}, in {minutes:.0f} minutes, on {cpu}: {cores} cores
({flags}), {memory} GiB, Python {python}. {versions}. In the peers' environment: {peers}. While it ran, the host took
{stolen} of the cores' time away.

A shared machine's speed changes by half within minutes, so all take turns of {turn:g} s, {rounds} rounds of them
(longer turns with 32 clients and token ids, and twice the rounds; longer ones in the open loop and as work grows, too,
in some of these two rounds only), in an order that rotates, and ratios are taken within each round: each is the median
over rounds, with its range. **Bold: Sluice loses.** Servers that have no turn are paused, engines without one wait for
their next command. Everybody gets the same texts (random whole words with lengths of the mix), the same weights and as
many threads as there are cores; servers are warmed up before each turn, engines when the texts are loaded. Latencies
are those of good answers. Tokens are useful ones: padding does not count. Batches of 32 texts as they come, padded to
their longest, would compute this many positions for each token: {naive}{padded}."""
_ELSEWHERE = (
    "- A GPU: [GPU.md](GPU.md) is the page of one; front ends beside one: "
    "[front_ends.jsonl](results/front_ends.jsonl).\n"
    "- CPUs without bfloat16, as many are: [the page of one](results/no-bfloat16/README.md), int8 included.\n"
    "- What a request and a text cost the server beside the model: [figures](results/host/host_path.json) and a "
    "[flame graph](results/host/host_path.svg) of one text a request (`python -m bench.host_path`).\n"
)
_TAIL = """## How to run it

`make bench`; parts of it with `BENCH_ARGS`, for example `make bench BENCH_ARGS="--group ids-1 --mix products --only
sluice coral --out /tmp/bench"`; `python -m bench --help` lists the rest. `TEI_URL=http://…` invites a running
text-embeddings-inference.

## What it leaves out

{elsewhere}- In a closed loop latency is what so many waiting clients see; it says nothing of a load that does not wait.
  The open loop does.
- The generator shares the cores with what it measures, as a sidecar would. Whoever speaks gRPC is asked by the same
  client (bench/http2.py), which does what calls of bytes need and no more: 0.06 to 0.1 ms of a core for each. gRPC's
  own Python client takes 0.3 to 0.4 ms, which would be measured as if it were the server's. Who speaks HTTP is asked
  through aiohttp.
- coral-gpu-inference has no setting for its dtype. It computes a contrastive checkpoint in bfloat16 and any other in
  the checkpoint's own dtype, so it gets the same weights in two forms. It pools without [CLS] and [SEP].
- OpenVINO in int8 would need a calibrated model; ONNX Runtime's int8 is dynamic. Their cosines say what they cost.

[All figures]({folder}results.json)."""
