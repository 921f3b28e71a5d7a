"""What a run would be: the resolved recipe, its size, and what it would draw from every direction. Trains nothing."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from nmt.config import Recipe
from nmt.config.runs import dump_recipe
from nmt.data.corpora import Corpus
from nmt.data.mixture import MixtureRow, mixing_table
from nmt.data.store import DirectionStats, RowLengths, SplitStats, Stats, load_stats
from nmt.recipes.size import Size, measure
from nmt.recipes.stages import Preparation

_CHARACTERS_PER_PIECE = 4.0  # of SentencePiece vocabularies of some thousand pieces on Latin script


def dry_run(recipe: Recipe, preparation: Preparation, console: Console) -> None:
    """Print the resolved recipe, parameters, memory and the mixing table.

    The corpora are fetched if they must be, into the cache; the run's folder is only read.
    """
    console.print(dump_recipe(recipe), highlight=False, markup=False, soft_wrap=True)
    show_size(measure(recipe, recipe.vocab.sizes), console)
    prepared = (preparation.store / "stats.json").exists()
    stats = load_stats(preparation.store) if prepared else _estimated(preparation.corpus(), recipe)
    table = mixing_table(stats, preparation.directions, recipe.data, recipe.rows, recipe.train.steps)
    show_mixture(table, recipe, console)
    if not prepared:
        console.print("examples and epochs are estimated from the characters of the text: nothing is prepared yet")


def show_size(size: Size, console: Console) -> None:
    """Print parameters and memory."""
    console.print(
        f"parameters: {size.parameters:,} in total, {size.active:,} active per token\n"
        f"memory, estimated: {_mega(size.total)} = weights {_mega(size.weights)} + optimizer {_mega(size.optimizer)} "
        f"+ gradients {_mega(size.gradients)} + activations {_mega(size.activations)}",
        highlight=False,
        soft_wrap=True,
    )


def show_mixture(rows: Sequence[MixtureRow], recipe: Recipe, console: Console) -> None:
    """Print what is drawn from every direction."""
    title = f"mixture at T={recipe.data.temperature:g}, {recipe.train.steps:,} steps"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("direction", "pairs", "share", "examples", "epochs"):
        table.add_column(name, justify="left" if name == "direction" else "right")
    for row in rows:
        table.add_row(
            str(row.direction), f"{row.pairs:,}", f"{row.share:.1%}", f"{row.examples:,.0f}", f"{row.epochs:.1f}"
        )
    console.print(table)


def _mega(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _estimated(corpus: Corpus, recipe: Recipe) -> Stats:
    """Return statistics as preparing would find them, with tokens estimated from characters."""
    directions = {}
    for direction, splits in corpus.sizes.items():
        pairs, _, characters = splits["train"]
        source, target = (int(count / _CHARACTERS_PER_PIECE) for count in characters)
        directions[str(direction)] = DirectionStats(0, {}, {"train": SplitStats(pairs, source, target, [])})
    return Stats({}, RowLengths(recipe.data.source_length, recipe.data.target_length), directions, [])
