"""What nmt-plan prints and writes."""

import json
import os
import sys
from dataclasses import dataclass
from typing import Any

from etils import epath
from rich.console import Console

from nmt.config import Recipe
from nmt.files import atomic_write
from nmt.plan.advice import knobs
from nmt.plan.compile import Overflow
from nmt.plan.display import show_attempt, show_collectives, show_head, show_plan, show_ranking
from nmt.plan.planning import Plan, as_json, make_plan
from nmt.plan.search import search
from nmt.plan.topology import Topology

FITS, TOO_LARGE = 0, 1  # exit statuses
GIB = 2**30
WIDE = 140  # columns


@dataclass(frozen=True)
class Options:
    """What is wanted besides."""

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
    console = _console(to_error=options.json == "-")
    if options.search:
        return _search(recipe, topology, options, console)
    what = "decoding" if options.decode else "the train step"
    with _waiting(f"compiling {what} of {recipe.name} for {topology}"):
        plan = make_plan(recipe, topology, options.decode)
    _write(as_json(plan), options.json)
    if isinstance(plan.outcome, Overflow):
        show_head(plan, console)
        print(f"nmt-plan: {misfit(plan, recipe, plan.outcome)}", file=sys.stderr)
        return TOO_LARGE
    show_plan(plan, console)
    if options.collectives:
        show_collectives(plan, console)
    return FITS


def _search(recipe: Recipe, topology: Topology, options: Options, console: Console) -> int:
    ranked = search(recipe, topology, options.arguments, lambda found: show_attempt(found, console))
    chosen = [(found.choice.arguments, found.plan) for found in ranked]
    _write({"ranked": [{"arguments": list(arguments), "plan": plan} for arguments, plan in chosen]}, options.json)
    if not ranked:
        print(f"nmt-plan: nothing that was tried of {recipe.name} fits {topology}: more devices", file=sys.stderr)
        return TOO_LARGE
    show_ranking(ranked, console)
    return FITS


def misfit(plan: Plan, recipe: Recipe, overflow: Overflow) -> str:
    """Return one line: by how much it does not fit, and what helps."""
    needed, available = overflow.needed, overflow.available
    what = "temporaries alone" if overflow.temporaries_only else "the step"
    return (
        f"{plan.recipe} does not fit {plan.topology}: {what} needs {needed / GIB:.2f} GiB of a device's "
        f"{available / GIB:.2f} GiB, {(needed - available) / GIB:.2f} GiB too much; what helps: "
        + "; ".join(knobs(plan, recipe))
    )


def _console(to_error: bool) -> Console:
    """Return where tables go; what is no terminal has lines long enough for them."""
    console = Console(stderr=to_error)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(stderr=to_error, width=WIDE)


def _waiting(text: str) -> Any:
    """Return a context with a spinner on a terminal, and nothing elsewhere."""
    return Console(stderr=True).status(text)


def _write(result: dict[str, Any], file: str | None) -> None:
    if file is None:
        return
    text = json.dumps(result, indent=2) + "\n"
    if file == "-":
        sys.stdout.write(text)
    else:
        with atomic_write(epath.Path(file)) as place:
            place.write_text(text)
