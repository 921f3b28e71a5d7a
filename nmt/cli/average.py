"""nmt-average: a run whose weights are the average of several checkpoints of another."""

from typing import Annotated, NamedTuple

import typer

from nmt.cli.shell import parsed, prepare_process, run_command, tell_note
from nmt.errors import UserError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class AverageArguments(NamedTuple):
    """The parsed arguments of nmt-average."""

    run: str
    output: str
    last: int | None = None
    best: int | None = None
    steps: str | None = None
    weights: str | None = None


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def average(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory, such as runs/quickstart.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="NEWRUN", help="Run directory to write.")],
    last: Annotated[int | None, typer.Option(min=2, metavar="N", help="The N newest checkpoints.")] = None,
    best: Annotated[
        int | None, typer.Option(min=2, metavar="N", help="The N checkpoints with the least development loss.")
    ] = None,
    steps: Annotated[
        str | None, typer.Option(metavar="STEPS", help="The checkpoints of these steps, such as 100,200.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Weight of each checkpoint, such as 0.7,0.3, in the order of --steps; with --last the oldest comes "
            "first, with --best the best. Default: all the same.",
        ),
    ] = None,
) -> AverageArguments:
    """Average checkpoints of a run, and write a run that nmt-translate, nmt-score and nmt-evaluate take.

    Where the run keeps a moving average of its weights (train.ema_decay), these moving averages are averaged.
    """
    return AverageArguments(run, output, last, best, steps, weights)


def main() -> None:
    """Run the command with the arguments of the process."""
    run_command(_main)


def _main() -> None:
    if request := parsed(app, AverageArguments):
        run_average(request)


def run_average(request: AverageArguments) -> None:
    """Average checkpoints as requested.

    Raises:
      UserError: a mistake in the request; nothing has been written then.
    """
    from nmt.config import read_run_recipe

    if (request.last, request.best, request.steps).count(None) != 2:
        raise UserError("which checkpoints? give one of --last N, --best N and --steps A,B (see nmt-average --help)")
    steps = tuple(int(one) for one in _numbers("--steps", request.steps, whole=True)) if request.steps else ()
    weights = None if request.weights is None else _numbers("--weights", request.weights)
    read_run_recipe(request.run)
    prepare_process()

    from nmt.evaluate.plot import read_metrics
    from nmt.models.weights import AVERAGE
    from nmt.train.averaging import AveragePlan, best_steps, newest_steps, write_average

    if request.last is not None:
        steps = newest_steps(request.run, request.last)
    elif request.best is not None:
        steps = best_steps(request.run, read_metrics(request.run), request.best)
    plan = AveragePlan(request.run, steps, tuple([1.0] * len(steps) if weights is None else weights))
    write_average(plan, request.output)
    kind = "the moving averages of the weights" if plan.item == AVERAGE else "the weights"
    shares = ", ".join(f"{step} ({share:.0%})" for step, share in plan.shares.items())
    tell_note(f"{request.output} is the average of {kind} at steps {shares}")


def _numbers(option: str, text: str, whole: bool = False) -> list[float]:
    try:
        return [int(one) if whole else float(one) for one in text.split(",")]
    except ValueError:
        raise UserError(f"{option} must be {'whole ' * whole}numbers with commas between (not {text!r})") from None


if __name__ == "__main__":
    main()
