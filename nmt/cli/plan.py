"""nmt-plan: compiles the real step of a recipe for a topology that need not be on this machine."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

import nmt
from nmt.cli.shell import command_name, run_command
from nmt.config import Recipe, load_recipe
from nmt.errors import UserError, did_you_mean
from nmt.files import declarations
from nmt.plan.topology import FORMS, Topology, parse_topology, prepare_environment

_USAGE = f"""\
Usage: nmt-plan recipe=NAME|path.yaml [topology=TOPOLOGY] [--decode] [--collectives] [--search]
                [--json FILE] [key=value ...]

Compiles the real train step of a recipe ahead of time, for devices that need not be here, and prints
parameters, memory, FLOPs, communication and an estimate of its time. Nothing is allocated or trained.
Exit status 1: it compiles, and does not fit the memory of a device.

  nmt-plan recipe=quickstart                        on one CPU device
  nmt-plan recipe=quickstart topology=cpu:8
  nmt-plan recipe=m4_600b topology=v3:32x32         on GShard's 2048 TPU cores
  nmt-plan recipe=m4_600b topology=v5e:16x16*4      on four slices
  nmt-plan recipe=m4_600b topology=v4:8x8x8 model.remat=full --search

  topology      {FORMS};
                chips in each dimension, *N for N slices. TPUs need: pip install -e '.[tpu]'
  --decode      the step of decoding instead, at the recipe's beam and batch
  --collectives also lists the collectives: how often, how large, from which line of the model
  --search      tries meshes, rematerialisation and accumulation; ranks what fits by estimated time
  --json FILE   also writes all of it to a file; - is standard output, instead of the tables
  -h, --help    this text
  --version     the version
"""
_OWN_KEYS = ("recipe", "topology")
_FLAGS = ("--decode", "--collectives", "--search", "--json")


class PlanArguments(NamedTuple):
    """The parsed arguments of nmt-plan."""

    recipe: str
    topology: Topology
    decode: bool
    collectives: bool
    search: bool
    json: str | None
    overrides: tuple[str, ...]


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(lambda: _main(sys.argv[1:]))


def parse_plan(arguments: Sequence[str]) -> PlanArguments:
    """Parse the arguments of the command.

    Raises:
      UserError: no recipe, an unknown option, an own key given twice, no such topology.
    """
    given: dict[str, str] = {}
    flags: set[str] = set()
    overrides: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        key, equals, value = argument.partition("=")
        if argument.startswith("-"):
            _flag(key, equals, value, rest, flags, given)
        elif not equals and given.get("recipe") is None and not overrides:
            given["recipe"] = argument
        elif not equals:
            raise UserError(f"argument {argument!r} is not of the form key=value, as {argument}=VALUE")
        elif key not in _OWN_KEYS:
            overrides.append(argument)
        else:
            _once(given, key, value)
    if "--search" in flags and {"--decode", "--collectives"} & flags:
        raise UserError("--search is for the train step and prints a ranking: leave out --decode and --collectives")
    if not given.get("recipe"):
        raise UserError(f"which recipe? write recipe=NAME (known: {', '.join(sorted(declarations('recipes')))})")
    topology = parse_topology(given.get("topology", "cpu:1"))
    return PlanArguments(
        recipe=given["recipe"],
        topology=topology,
        decode="--decode" in flags,
        collectives="--collectives" in flags,
        search="--search" in flags,
        json=given.get("--json"),
        overrides=tuple(overrides),
    )


def _flag(key: str, equals: str, value: str, rest: list[str], flags: set[str], given: dict[str, str]) -> None:
    if key not in _FLAGS:
        raise UserError(f"unknown option {key}{did_you_mean(key, _FLAGS)}; keys of the recipe are written key=value")
    if key != "--json":
        if equals:
            raise UserError(f"{key} takes no value (not {value!r})")
        flags.add(key)
    elif equals or rest:
        _once(given, key, value if equals else rest.pop(0))
    if key == "--json" and not given.get(key):
        raise UserError("--json needs a file, or - for standard output")


def _once(given: dict[str, str], key: str, value: str) -> None:
    if key in given:
        raise UserError(f"{key} is given twice: {given[key]} and {value}")
    given[key] = value


def _main(arguments: Sequence[str]) -> None:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(_USAGE, end="")
        return
    if "--version" in arguments:
        print(f"nmt-plan {nmt.__version__}")
        return
    request = parse_plan(arguments)
    recipe = load_recipe(request.recipe, request.overrides, _say)
    prepare_environment(request.topology)
    sys.exit(_run(request, recipe))


def _say(line: str) -> None:
    print(f"{command_name()}: {line}", file=sys.stderr)


def _run(request: PlanArguments, recipe: Recipe) -> int:
    """Plan, print; return the exit status."""
    from nmt.recipes.plan_report import Options, plan_and_report

    same = (f"recipe={request.recipe}", f"topology={request.topology}", *request.overrides)
    options = Options(request.decode, request.collectives, request.search, request.json, same)
    return plan_and_report(recipe, request.topology, options)


if __name__ == "__main__":
    main()
