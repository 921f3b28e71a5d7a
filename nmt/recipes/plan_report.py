"""The report of nmt-plan, on the terminal and as JSON."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from etils import epath
from rich.console import Console

from nmt.config import Recipe
from nmt.files import atomic_write
from nmt.plan.advice import knobs
from nmt.plan.compile import Overflow
from nmt.plan.planning import Plan, make_plan, plan_as_json
from nmt.plan.search import Attempt, Search, rank, search_as_json
from nmt.plan.topology import Topology
from nmt.recipes.plan_tables import show_attempt, show_collectives, show_head, show_plan, show_ranking, show_search
from nmt.recipes.terminal import TerminalProgress, table_console

FITS, TOO_LARGE, INTERRUPTED = 0, 1, 130  # exit statuses
GIB = 2**30
WIDE = 140  # columns


@dataclass(frozen=True)
class Options:
    """Options of a plan beside its recipe and topology."""

    decode: bool = False
    collectives: bool = False
    search: bool = False
    json: str | None = None  # file; - is standard output
    arguments: tuple[str, ...] = ()  # that say recipe, topology and keys, for processes that search


def plan_and_report(recipe: Recipe, topology: Topology, options: Options) -> int:
    """Plan a recipe on a topology, print and write what is found; return the exit status.

    Raises:
      UserError: the mesh does not fit the topology, the model or the batch.
    """
    console = table_console(WIDE, to_error=options.json == "-")
    if options.search:
        return _search(recipe, topology, options, console)
    what = "decoding" if options.decode else "the train step"
    with TerminalProgress().wait(f"compiling {what} of {recipe.name} for {topology}"):
        plan = make_plan(recipe, topology, options.decode)
    _write(plan_as_json(plan), options.json)
    if isinstance(plan.outcome, Overflow):
        show_head(plan, console)
        print(f"nmt-plan: {misfit(plan, recipe, plan.outcome)}", file=sys.stderr)
        return TOO_LARGE
    show_plan(plan, console)
    if options.collectives:
        show_collectives(plan, console)
    return FITS


def _search(recipe: Recipe, topology: Topology, options: Options, console: Console) -> int:
    trying = Search(recipe, topology, options.arguments)
    show_search(trying, console)
    found: list[Attempt] = []
    interrupted = False
    try:
        with TerminalProgress().track("compiling, at most", trying.most, "programs") as task:
            for one in trying.run():
                found.append(one)
                show_attempt(one, console)
                task.update(len(found))
                if options.json != "-":  # so that a search that is killed leaves what it has found
                    _write(search_as_json(trying, found, ended=False), options.json)
    except KeyboardInterrupt:
        interrupted = True
    _write(search_as_json(trying, found, ended=not interrupted), options.json)
    ranked = rank(found)
    if found:
        show_ranking(ranked, found, console)
    if interrupted:
        print(f"nmt-plan: interrupted after {len(found)} of at most {trying.most} programs", file=sys.stderr)
        return INTERRUPTED
    if not ranked:
        print(f"nmt-plan: nothing that was tried of {recipe.name} fits {topology}: more devices", file=sys.stderr)
    return FITS if ranked else TOO_LARGE


def misfit(plan: Plan, recipe: Recipe, overflow: Overflow) -> str:
    """Return one line: the memory that is missing, and the settings that need less."""
    needed, available = overflow.needed, overflow.available
    program = "decoding" if plan.decode else "the step"
    what = f"temporaries of {program} alone need" if overflow.temporaries_only else f"{program} needs"
    return (
        f"{plan.recipe} does not fit {plan.topology}: {what} {needed / GIB:.2f} GiB of a device's "
        f"{available / GIB:.2f} GiB, {(needed - available) / GIB:.2f} GiB too much; what helps: "
        + "; ".join(knobs(plan, recipe))
    )


def _write(result: dict[str, Any], file: str | None) -> None:
    if file is None:
        return
    text = json.dumps(result, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        with atomic_write(epath.Path(file)) as place:
            place.write_text(text)
