"""nmt-vocab: learns the vocabulary of a recipe, and reports how a vocabulary segments each language."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from nmt.cli.shell import command_name, run_command
from nmt.config import load_recipe
from nmt.errors import UserError

_USAGE = """\
Usage: nmt-vocab recipe=NAME [key=value ...]
       nmt-vocab --report RUN
       nmt-vocab --report MODEL < text

The first learns the vocabulary of a recipe into its run's folder, as nmt-train does before anything else, and shows
the report. The second shows the report of a run, the third that of any SentencePiece model that vocab.model takes, on
lines of text: tokens per word and per character, unknown and byte pieces, the share of lines that do not come back from
encode and decode, the words of most pieces, and the characters that are lost, most frequent first.

  nmt-vocab recipe=quickstart vocab.size=8000 vocab.model_type=bpe run_dir=runs/bpe
  nmt-vocab --report runs/quickstart

  -h, --help    this text
"""


class VocabArguments(NamedTuple):
    """The parsed arguments of nmt-vocab: a report, or the vocabulary of a recipe."""

    report: str  # a run or a model; empty: learn
    recipe: str
    overrides: tuple[str, ...]


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(lambda: _vocab(sys.argv[1:]))


def parse_vocab(arguments: Sequence[str]) -> VocabArguments:
    """Parse the arguments of the command.

    Raises:
      UserError: no recipe, or several, or a report of nothing or of several things.
    """
    if arguments and arguments[0] == "--report":
        if len(arguments) != 2:
            raise UserError("--report takes one run or model (see nmt-vocab --help)")
        return VocabArguments(arguments[1], "", ())
    recipes = [argument for argument in arguments if argument.startswith("recipe=")]
    if len(recipes) != 1 or not (name := recipes[0].removeprefix("recipe=")):
        raise UserError("which recipe? write recipe=NAME once (see nmt-vocab --help)")
    return VocabArguments("", name, tuple(argument for argument in arguments if argument != recipes[0]))


def _vocab(arguments: Sequence[str]) -> None:
    if {"-h", "--help"} & set(arguments):
        print(_USAGE, end="")
        return
    request = parse_vocab(arguments)
    recipe = None if request.report else load_recipe(request.recipe, request.overrides, _say)
    # Only now that the arguments are known to be good: these imports take a second.
    from nmt.recipes.vocabulary import learn_vocabulary, report

    if recipe is None:
        report(request.report, sys.stdin)
    else:
        learn_vocabulary(recipe)


def _say(line: str) -> None:
    print(f"{command_name()}: {line}", file=sys.stderr)


if __name__ == "__main__":
    main()
