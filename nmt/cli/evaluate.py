"""nmt-evaluate: BLEU and chrF++ of every direction of a run, from one loaded model."""

import json
from typing import Annotated, NamedTuple

import typer

from nmt.cli.shell import parsed, prepare_process, run_command
from nmt.errors import UserError

_MANY = 100  # directions that nobody asked for by name

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class EvaluateArguments(NamedTuple):
    """The parsed arguments of nmt-evaluate."""

    run: str
    testset: str | None
    pairs: list[str] | None
    beam: int | None
    step: int | None
    force: bool
    as_json: bool
    references: str | None = None
    precision: str | None = None


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.")],
    testset: Annotated[
        str | None,
        typer.Option(
            metavar="SET",
            help="test, dev (the run's own held-out text); a folder or pattern of files such as de-en.jsonl, or "
            "deu_Latn.devtest and eng_Latn.devtest, or .sgm or .xml of WMT; one .tsv (source<TAB>target), .jsonl or "
            ".xml file; or a source and its references, commas between. Default: what the recipe says, usually test.",
        ),
    ] = None,
    pairs: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PAIRS",
            help="Directions, such as de-en, '*-en' or all; commas between; may be repeated. Default: all.",
        ),
    ] = None,
    beam: Annotated[int | None, typer.Option(min=1, metavar="N", help="Beam width. Default: the recipe's.")] = None,
    step: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Step of the checkpoint. Default: the newest.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Translate again what has been evaluated already.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the matrix as JSON instead of a table.")] = False,
    references: Annotated[
        str | None,
        typer.Option(
            metavar="FORM",
            help="normalised: references are brought to the form of the training text before they are scored; "
            "raw: they are scored as they are in the file. Default: what the recipe says, usually normalised.",
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Precision of weights: float32, bfloat16, int8, or auto for the fastest here. "
            "Default: what the model was trained in.",
        ),
    ] = None,
) -> EvaluateArguments:
    """Translate held-out text of every direction with one loaded model, and print BLEU and chrF++.

    Results, hypotheses and report.html are written to RUN/evaluation/STEP/SET. What was evaluated before, with the
    same checkpoint, text and options, is not translated again.
    """
    wanted = [name.strip() for text in pairs for name in text.split(",") if name.strip()] if pairs else None
    return EvaluateArguments(run, testset, wanted, beam, step, force, as_json, references, precision)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    if request := parsed(app, EvaluateArguments):
        _evaluate(request)


def _evaluate(request: EvaluateArguments) -> None:
    from nmt.config import read_run_recipe
    from nmt.evaluate.sets import open_set, select
    from nmt.models.precision import check_precision

    if request.references not in (None, "normalised", "raw"):
        raise UserError(f"--references must be normalised or raw (not {request.references})")
    check_precision(request.precision)
    recipe = read_run_recipe(request.run)
    testset = recipe.evaluate.split if request.testset is None else request.testset
    chosen = open_set(request.run, testset, request.pairs, recipe.evaluate.sentences)
    directions = select(chosen, recipe, request.pairs).directions  # mistakes are told before anything is loaded
    prepare_process()

    from nmt.decode.translator import Translator
    from nmt.evaluate.matrix import evaluate as evaluate_run
    from nmt.recipes.scores import show_matrix
    from nmt.recipes.terminal import TerminalProgress

    progress = TerminalProgress()
    for note in chosen.notes:
        progress.warn(note)
    if len(directions) > _MANY and request.pairs is None:
        progress.say(f"evaluating {len(directions):,} directions: --pairs names fewer, as in --pairs '*-en,en-*'")
    translator = Translator(request.run, step=request.step, precision=request.precision)
    matrix = evaluate_run(
        translator,
        request.run,
        split=chosen,
        directions=request.pairs,
        beam=request.beam,
        references=request.references,
        force=request.force,
        progress=progress,
    )
    if request.as_json:
        print(json.dumps(matrix.to_json(), indent=2, ensure_ascii=False))
    else:
        show_matrix(matrix)
    progress.say(f"written to {matrix.folder} (open report.html there)")


if __name__ == "__main__":
    main()
