"""A plan on the terminal."""

import re
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from nmt.plan.compile import Compiled
from nmt.plan.decoding import Decoding
from nmt.plan.hlo import Collective, Program
from nmt.plan.memory import ESTIMATED
from nmt.plan.planning import TRILLION, Plan
from nmt.plan.roofline import Roofline
from nmt.plan.search import SEARCHED, Attempt, Search
from nmt.recipes.terminal import print_line
from nmt.sharding.mesh_presets import SIZED

GIB = 2**30
_PARTS = ("encoder", "decoder", "self_attention", "cross_attention", "feed_forward", "moe")  # `jax.named_scope`s


def show_plan(plan: Plan, console: Console) -> None:
    """Print all that is known of a plan whose program fits."""
    assert isinstance(plan.outcome, Compiled)
    show_head(plan, console)
    console.print(_memory_table(plan, plan.outcome))
    for table in _work_tables(plan):
        console.print(table)
    if plan.roofline is not None:
        console.print(_decoding_times(plan.decoding, plan.roofline) if plan.decoding else _times(plan, plan.roofline))
        for line in plan.roofline.assumptions:
            print_line(console, f"  assumed: {line}")
    for note in plan.program.notes if plan.program else ():
        print_line(console, f"  note: {note}")
    outcome = plan.outcome
    print_line(
        console,
        f"compiled in {outcome.compile_seconds:.0f} s (traced and lowered in {outcome.lower_seconds:.0f} s), "
        f"with {outcome.host_bytes / GIB:.1f} GiB of this machine's memory",
    )


def show_head(plan: Plan, console: Console) -> None:
    """Print what is planned: parameters and mesh."""
    axes = ", ".join(f"{axis}={size}" for axis, size in plan.mesh.items())
    parameters = plan.parameters
    print_line(console, f"{plan.recipe} on {plan.topology}: {plan.devices:,} devices, mesh {axes}")
    print_line(
        console,
        f"parameters: {parameters.total:,} in total, {parameters.active:,} active per token, "
        f"{parameters.per_device:,} on each device",
    )
    if plan.decoding is not None:
        decoding = plan.decoding
        print_line(
            console,
            f"decoding: {decoding.rows:,} sentences of {decoding.source} source tokens at once, beam {decoding.beam}, "
            f"room for {decoding.room} tokens each",
        )


def show_collectives(plan: Plan, console: Console) -> None:
    """Print the collectives of the step: how often, how much, from which part and line of the model."""
    assert plan.program is not None
    what = "encoding a batch, and of decoding one token of each sentence" if plan.decode else "one step"
    title = f"collectives of {what}, on each device"
    table = _table(title, "kind", "phase", "times", "bytes each", "bytes", "devices", "from", numbers=(2, 3, 4, 5))
    for phase, one in sorted(plan.collectives, key=lambda found: -found[1].bytes):
        table.add_row(
            one.kind + (" across slices" if one.across_slices else ""),
            phase,
            f"{one.executions:,.0f}",
            amount(one.payload_bytes),
            amount(one.bytes),
            f"{one.group_size:,}",
            origin(one),
        )
    console.print(table)
    for phase, count in per_sparse_layer(plan).items():
        which = "of the decoder, a token" if plan.decode else phase
        print_line(console, f"all-to-all for each mixture-of-experts layer, {which}: {count:g}")


def per_sparse_layer(plan: Plan) -> dict[str, float]:
    """Return all-to-alls for each sparse layer by phase; empty for a dense model, and where there is none."""
    if plan.program is None or not plan.sparse_layers:
        return {}
    found = plan.program.per_layer(plan.sparse_layers)
    return {phase: count for phase, count in found.items() if count}


def origin(one: Collective) -> str:
    """Return which part of the model a collective is of, the operation, and the line of our code.

    XLA joins the names of what it merges into one; the first of them stands for all.
    """
    first = re.split("[:;]", one.op_name)[0]
    parts = [part for part in _PARTS if re.search(rf"\b{part}\b", first)]
    place = re.sub(r"^.*?/?(?=nmt/)", "", one.source)
    return " ".join([*parts, first.rsplit("/", 1)[-1].strip("()"), f"({place})" if place else ""]).strip()


def _memory_table(plan: Plan, compiled: Compiled) -> Table:
    table = _table("memory of a device", "", "GiB", "", numbers=(1,))
    for name, size in plan.memory.items():
        if size:
            table.add_row(name, _gib(size), "estimated" if name in ESTIMATED else "exact")
    memory = compiled.memory
    table.add_section()
    table.add_row("arguments", _gib(memory.arguments), "what is there before it, as XLA lays it out")
    table.add_row(
        "temporaries", _gib(memory.temporaries + memory.outputs + memory.code), "reserved, program's code too"
    )
    table.add_row("peak", _gib(memory.peak), _chip_share(plan, memory.peak))
    return table


def _chip_share(plan: Plan, used: float) -> str:
    size = plan.chip.hbm_bytes
    return "" if size is None else f"of {size / GIB:.2f} GiB that a program may use ({used / size:.0%})"


def _work_tables(plan: Plan) -> list[Table]:
    assert plan.program is not None
    decoding = plan.decoding
    if decoding is None:
        return [_work_table("one step", plan.program, plan.devices, "each token", plan.tokens, plan.model_flops)]
    assert decoding.encoding is not None
    tokens = decoding.rows * decoding.source
    return [
        _work_table("encoding the sources", decoding.encoding, plan.devices, "each source token", tokens),
        _work_table("decoding a token of each sentence", plan.program, plan.devices, "each token", plan.tokens),
    ]


def _work_table(what: str, program: Program, devices: int, each: str, tokens: int, model_flops: float = 0.0) -> Table:
    table = _table(f"work of {what}", "", "all devices", "each device", each, numbers=(1, 2, 3))

    def row(name: str, here: float, unit: str) -> None:
        table.add_row(name, *(amount(x, unit) for x in (here * devices, here, here * devices / tokens)))

    row("FLOPs", program.flops, "")
    if model_flops:
        row("FLOPs of the model alone", model_flops / devices, "")
    row("HBM traffic", program.bytes_accessed, "B")
    for kind, (count, size) in program.totals().items():
        row(f"{kind}, {count:,.0f} times", size, "B")
    return table


def _decoding_times(decoding: Decoding, step: Roofline) -> Table:
    first = decoding.encoding_time
    assert first is not None
    table = _table("roofline", "estimated time of", "encoding", "a token of each", numbers=(1, 2))
    table.add_row("compute", _seconds(first.compute), _seconds(step.compute))
    table.add_row("HBM", _seconds(first.memory), _seconds(step.memory))
    for kind in sorted({*first.interconnect, *step.interconnect}):
        table.add_row(kind, *(_seconds(time.interconnect.get(kind, 0.0)) for time in (first, step)))
    table.add_row("one after the other", _seconds(first.longest), _seconds(step.longest))
    table.add_row("all at once", _seconds(first.shortest), _seconds(step.shortest))
    table.add_section()
    table.add_row("tokens per second", "", _range(decoding.rows / step.longest, decoding.rows / step.shortest))
    slow, fast = decoding.seconds(step)
    words = f"sentences per second, {decoding.source} tokens to {decoding.source}"
    table.add_row(words, "", _range(decoding.rows / slow, decoding.rows / fast))
    return table


def _times(plan: Plan, roofline: Roofline) -> Table:
    paper = plan.paper if plan.chip.kind == "v3" else None
    columns = ["estimated time of a step", ""] + ([f"paper, {paper.cores:,} cores"] if paper else [])
    table = _table("roofline", *columns, numbers=range(1, len(columns)))

    def row(name: str, value: str, published: str = "") -> None:
        table.add_row(name, value, *([published] if paper else []))

    row("compute", _seconds(roofline.compute))
    row("HBM", _seconds(roofline.memory))
    for kind, seconds in roofline.interconnect.items():
        row(kind, _seconds(seconds))
    row("one after the other", _seconds(roofline.longest))
    row("all at once", _seconds(roofline.shortest))
    table.add_section()
    steps = paper.steps_per_second if paper else None
    days = paper.days if paper else None
    row("steps per second", _range(1 / roofline.longest, 1 / roofline.shortest), f"{steps}" if steps else "")
    row("model FLOPs utilisation", _range(roofline.mfu() * 100, roofline.mfu(roofline.shortest) * 100) + " %")
    slow, fast = (roofline.days(TRILLION, seconds) for seconds in (roofline.longest, roofline.shortest))
    row("days to 1e12 tokens", _range(slow, fast), f"{days}" if days else "")
    return table


def _table(title: str, *columns: str, numbers: Iterable[int] = ()) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    right = set(numbers)
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place in right else "left", overflow="fold")
    return table


def _range(slow: float, fast: float) -> str:
    return f"{slow:.3g} to {fast:.3g}"


def _seconds(seconds: float) -> str:
    if 0 < seconds < 1e-3:
        return f"{seconds * 1e6:,.1f} us"
    return f"{seconds * 1000:,.1f} ms" if seconds < 1 else f"{seconds:,.2f} s"


def _gib(size: float) -> str:
    return f"{size / GIB:,.3f}"


def amount(value: float, unit: str = "B") -> str:
    """Return a number with a decimal prefix, such as 1.5 GB."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(value) < 1000 or prefix == "E":
            return f"{value:.3g} {prefix}{unit}".rstrip()
        value /= 1000
    raise AssertionError


def show_search(search: Search, console: Console) -> None:
    """Print what a search will do, and how long that may take."""
    print_line(
        console,
        f"trying {len(search.meshes)} mesh(es), the likeliest first, at most {search.most} programs: each is compiled, "
        "which takes seconds for a small model and minutes for one of billions of parameters; Ctrl-C ends the search "
        "and ranks what it has found",
    )
    if kept := sorted(search.fixed & {*SEARCHED, *(f"mesh.{axis}" for axis in ("preset", *SIZED))}):
        print_line(console, f"kept as given: {', '.join(kept)}")


def show_attempt(found: Attempt, console: Console) -> None:
    """Print a line about one choice that was tried."""
    print_line(console, f"  {found.took:5.0f} s  {_outcome(found)}: {_arguments(found)}")


def show_ranking(ranked: Sequence[Attempt], found: Sequence[Attempt], console: Console) -> None:
    """Print the choices that fit, the fastest first, and then the others."""
    table = _table("what fits, fastest first", "", "step", "peak GiB", "arguments", numbers=(0, 1, 2))
    for place, one in enumerate(ranked, 1):
        assert one.plan is not None
        table.add_row(f"{place}", _speed(one), _gib(one.plan["memory"]["peak"]), _arguments(one))
    if len(found) > len(ranked):
        table.add_section()
    for one in found:
        if not one.fits:
            table.add_row("", "", "", f"{_arguments(one)}: {_outcome(one)}")
    console.print(table)


def _arguments(found: Attempt) -> str:
    return " ".join(found.choice.arguments) or "as given"


def _outcome(found: Attempt) -> str:
    if found.plan is None:
        return f"{'impossible' if found.impossible else 'failed'} ({found.reason})"
    if found.fits:
        return f"fits, peak {found.plan['memory']['peak'] / GIB:.2f} GiB, {_speed(found)}"
    return f"too large by {(found.plan['needed_bytes'] - found.plan['available_bytes']) / GIB:.2f} GiB"


def _speed(found: Attempt) -> str:
    assert found.plan is not None
    return _seconds(found.seconds) if "roofline" in found.plan else f"{amount(found.seconds, '')} FLOPs"
