"""nmt-train: runs a recipe end to end."""

import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import nmt
from nmt.cli.launch import KEYS, LaunchKeys, parse_launch
from nmt.cli.shell import command_name, prepare_process, run_command
from nmt.config import load_recipe
from nmt.config.documents import read_document
from nmt.config.keys import keys_by_name
from nmt.config.reference import help_text
from nmt.config.runs import flat_recipe
from nmt.errors import UserError, did_you_mean
from nmt.files import declarations

_USAGE = """\
Usage: nmt-train recipe=NAME|path.yaml [dry_run=true] [key=value ...]

Runs a recipe end to end: fetches and cleans its corpora, learns a vocabulary, trains a model and
evaluates it. What is done already is skipped; a run that was stopped goes on.

  nmt-train recipe=quickstart                  the whole run, into runs/quickstart
  nmt-train recipe=quickstart dry_run=true     trains nothing: shows the resolved recipe, the number
                                               of parameters, the memory needed and the mixture
  nmt-train recipe=quickstart model.moe=null run_dir=runs/dense
  nmt-train recipe=my.yaml data.directions=de-en,en-de train.steps=2000

On a TPU pod, under SLURM and under Open MPI the same command, started on every host, is one run.
Elsewhere say which process is which (docs/pods.md); this is not kept in the run's recipe.yaml:

{launch}

  -h, --help    this text
  --version     the version
"""
_OWN_KEYS = ("recipe", "dry_run", *KEYS)


class TrainArguments(NamedTuple):
    """The parsed arguments of nmt-train."""

    recipe: str
    dry_run: bool
    overrides: tuple[str, ...]
    launch: LaunchKeys = LaunchKeys()


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(lambda: _train(sys.argv[1:]), _leave)


def parse_train(arguments: Sequence[str]) -> TrainArguments:
    """Return the recipe, whether to train at all, and the `key=value` arguments for the recipe.

    Raises:
      UserError: no recipe, something that is not `key=value`, an own key given twice.
    """
    given: dict[str, str] = {}
    overrides = []
    for place, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        _check_form(argument, is_first=place == 0)
        if not equals:
            key, value = "recipe", argument
        if key not in _OWN_KEYS:
            overrides.append(argument)
        elif key in given:
            raise UserError(f"{key} is given twice: {given[key]} and {value}")
        else:
            given[key] = value
    if not given.get("recipe"):
        raise UserError(f"which recipe? write recipe=NAME (known: {', '.join(sorted(declarations('recipes')))})")
    keys = parse_launch({key: value for key, value in given.items() if key in KEYS})
    return TrainArguments(given["recipe"], _truth(given.get("dry_run", "false")), tuple(overrides), keys)


def usage() -> str:
    """Return the text of --help: usage, every recipe with its description, every key."""
    recipes = "\n".join(_recipe_line(name) for name in declarations("recipes"))
    keys = "\n".join(f"  {key.ljust(29)} {description}" for key, description in KEYS.items())
    return f"{_USAGE.format(launch=keys)}\nRecipes:\n{recipes}\n\nKeys, with their defaults:\n\n{help_text()}"


def _train(arguments: Sequence[str]) -> None:
    if not arguments or {"-h", "--help"} & set(arguments):
        print(usage())
        return
    if "--version" in arguments:
        print(f"nmt-train {nmt.__version__}")
        return
    request = parse_train(arguments)
    notes: list[str] = []
    recipe = load_recipe(request.recipe, request.overrides, notes.append)
    prepare_process()  # which may start the process anew, so that notes come after it
    for note in notes:
        _say(note)
    import jax

    from nmt.recipes.runner import run_recipe
    from nmt.sharding.hosts import ALONE, Launch, joined

    command = shlex.join(["nmt-train", *arguments])
    if request.dry_run:
        run_recipe(recipe, dry_run=True, command=command, hosts=ALONE)
        return
    greeting = {"nmt": nmt.__version__, "jax": jax.__version__, **flat_recipe(recipe)}
    with joined(Launch(*request.launch), greeting, _say) as hosts:
        run_recipe(recipe, dry_run=False, command=command, hosts=hosts)


def _say(text: str) -> None:
    print(f"{command_name()}: {text}", file=sys.stderr, flush=True)


def _leave(status: int) -> NoReturn:
    """End the process with a status; a process of a pod ends without JAX waiting for the others."""
    if "nmt.sharding.hosts" in sys.modules:
        from nmt.sharding.hosts import finish

        finish(status)
    sys.exit(status)


def _check_form(argument: str, is_first: bool) -> None:
    """Raise UserError, with a correction, for an argument that is neither key=value nor, if first, a recipe's name."""
    key, equals, value = argument.partition("=")
    if argument.startswith("-"):
        bare = key.lstrip("-").replace("-", "_")
        value = value if equals else "true" if bare == "dry_run" else "VALUE"
        raise UserError(f"unknown option {argument}: keys are written without dashes, as {bare}={value}")
    if not equals and not is_first:
        value = "true" if argument == "dry_run" else "VALUE"
        raise UserError(f"argument {argument!r} is not of the form key=value, as {argument}={value}")
    if equals and key not in _OWN_KEYS and key not in keys_by_name() and (hint := did_you_mean(key, _OWN_KEYS)):
        raise UserError(f"argument {argument}: unknown key {key}{hint}")


def _truth(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise UserError(f"dry_run must be true or false (not {text!r})")
    return text.lower() == "true"


def _recipe_line(name: str) -> str:
    try:
        description = read_document(declarations("recipes")[name]).values.get("description") or ""
    except UserError as error:
        description = f"(cannot be read: {error})"
    head = f"  {name.ljust(14)}  "
    return textwrap.fill(str(description), 100, initial_indent=head, subsequent_indent=" " * len(head)) or head.rstrip()


if __name__ == "__main__":
    main()
