"""A dry run: the resolved recipe, its size, and the examples it would draw from every direction. Trains nothing."""

from collections.abc import Sequence

from etils import epath
from rich.console import Console
from rich.table import Table

from nmt.config import Recipe, VocabConfig
from nmt.config.runs import dump_recipe
from nmt.corpora import Corpus
from nmt.corpora.declare.spec import load_specs
from nmt.corpora.declare.spec_split import Split
from nmt.corpora.obtain.cache import megabytes
from nmt.corpora.obtain.fetch import find_fetched
from nmt.corpora.opening import open_corpora
from nmt.data.mixture import MixtureRow, mixing_table
from nmt.data.round_trip import name_character, round_trip
from nmt.data.store import DirectionStats, RowLengths, SplitStats, Stats, is_stored, load_stats
from nmt.data.vocabularies import Vocabularies
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.progress import Reporter
from nmt.recipes.held_out import note_missing
from nmt.recipes.size import ModelSize, measure
from nmt.recipes.stages import RunPreparation

_MOST_ROWS = 24  # of a table that a person reads
_MOST_FETCHED = 100_000_000  # bytes of text that a dry run fetches, where it has none, to show the mixture
# Some characters that rules of normalisation change, one of a kind; of Persian its zero-width non-joiner.
_PROBE = ("10\u00b3", "2\u00bd", "\uff0c", "\u0e33", "\u0587", "\u0645\u06cc\u200c\u062e")
_CHARACTERS_PER_PIECE = 4.0  # of SentencePiece vocabularies of some thousand pieces on Latin script


def dry_run(recipe: Recipe, preparation: RunPreparation, console: Console) -> None:
    """Print the resolved recipe, parameters, memory, and the mixing table if the text is here.

    Nothing of this needs text but the table. Little text is fetched into the cache; the run's folder is only read.

    Raises:
      UserError: the vocabulary that the recipe names is missing, is none, or has another size.
    """
    named = preparation.read_named_vocabularies()
    console.print(dump_recipe(recipe), highlight=False, markup=False, soft_wrap=True)
    show_size(measure(recipe, recipe.vocab.sizes), console)
    if named is not None:
        show_named_vocabularies(named, recipe.vocab, console)
    prepared = is_stored(preparation.store)
    if not prepared and (reason := _why_no_text(recipe, preparation.progress)):
        console.print(f"mixture: not shown, since {reason}", highlight=False, markup=False, soft_wrap=True)
        return
    stats = load_stats(preparation.store) if prepared else _estimate_stats(preparation.corpus(), recipe)
    table = mixing_table(stats, preparation.directions, recipe.data, recipe.rows, recipe.train.steps)
    show_mixture(table, recipe, console)
    if not prepared:
        console.print("examples and epochs are estimated from the characters of the text: nothing is prepared yet")
    for note in note_missing(recipe, stats):
        console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)


def show_size(size: ModelSize, console: Console) -> None:
    """Print parameters and memory."""
    console.print(
        f"parameters: {size.parameters:,} in total, {size.active:,} active per token\n"
        f"memory, estimated: {_mega(size.total)} = weights {_mega(size.weights)} + optimizer {_mega(size.optimizer)} "
        f"+ gradients {_mega(size.gradients)} + activations {_mega(size.activations)}",
        highlight=False,
        soft_wrap=True,
    )


def show_named_vocabularies(named: Vocabularies, config: VocabConfig, console: Console) -> None:
    """Print size and rule of each vocabulary that a recipe names, and some usual characters that it loses."""
    paths = (config.model, config.model if named.is_shared else config.target_model)
    for path, vocabulary in dict(zip(paths, named, strict=True)).items():
        line = f"vocabulary: {vocabulary.size:,} pieces of {path}, rule of normalisation {vocabulary.normalisation}"
        if lost := round_trip(vocabulary, _PROBE, vocabulary.encode(_PROBE)).lost:
            some = ", ".join(map(name_character, lost))
            line += f"; it changes text, such as {some}: nmt-vocab --report {path} < TEXT says how much of yours"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_mixture(rows: Sequence[MixtureRow], recipe: Recipe, console: Console) -> None:
    """Print the examples drawn from every direction; of many directions, the largest, the smallest and sums by kind."""
    schedule = recipe.data.mixture.temperatures
    temperature = f"{schedule[0]} to {schedule[-1]} (step:T)" if schedule else f"T={recipe.data.temperature:g}"
    title = f"mixture at {temperature}, {recipe.train.steps:,} steps"
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in ("direction", "pairs", "share", "examples", "epochs"):
        table.add_column(name, justify="left" if name == "direction" else "right")
    if len(rows) <= _MOST_ROWS:
        shown, hidden = [_cells(str(row.direction), [row]) for row in rows], 0
    else:
        ordered = sorted(rows, key=lambda row: -row.pairs)
        half = _MOST_ROWS // 2
        hidden = len(rows) - 2 * half
        shown = [_cells(str(row.direction), [row]) for row in ordered[:half]]
        shown += [("...", "", "", "", "")] + [_cells(str(row.direction), [row]) for row in ordered[-half:]]
    for cells in shown:
        table.add_row(*cells)
    if hidden:
        table.add_section()
        texts = [row for row in rows if row.direction.denoises]
        pairs = [row for row in rows if not row.direction.denoises]
        into = [row for row in pairs if row.direction.target == "en"]
        out_of = [row for row in pairs if row.direction.source == "en"]
        others = [row for row in pairs if "en" not in row.direction]
        sums = {"all to en": into, "en to all": out_of, "others": others, "denoising": texts, "together": rows}
        for name, members in sums.items():
            if members:
                table.add_row(*_cells(f"{name} ({len(members)})", members))
    console.print(table)
    if hidden:
        console.print(f"{hidden} directions more in mixture.tsv, in the run's folder data", highlight=False)


def write_mixture(rows: Sequence[MixtureRow], store: epath.Path) -> None:
    """Write the examples drawn from every direction to RUN/data/mixture.tsv."""
    lines = ["direction\tpairs\tshare\texamples\tepochs\n"]
    lines += [f"{row.direction}\t{row.pairs}\t{row.share:.8f}\t{row.examples:.1f}\t{row.epochs:.4f}\n" for row in rows]
    path, text = store / "mixture.tsv", "".join(lines)
    if not path.exists() or path.read_text() != text:
        with atomic_write(path) as temporary:
            temporary.write_text(text)


def _cells(name: str, rows: Sequence[MixtureRow]) -> tuple[str, ...]:
    pairs, share, examples = (sum(getattr(row, field) for row in rows) for field in ("pairs", "share", "examples"))
    epochs = examples / pairs if pairs else 0.0
    return name, f"{pairs:,}", f"{share:.1%}" if share >= 0.01 else f"{share:.3%}", f"{examples:,.0f}", f"{epochs:.1f}"


def _mega(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _why_no_text(recipe: Recipe, progress: Reporter) -> str | None:
    """Return the reason why the text of a recipe cannot be counted here and now; None: it can."""
    corpora = recipe.data.corpora
    try:
        missing = [spec for spec in load_specs(corpora) if find_fetched(spec) is None]
        size = sum(getattr(spec.obtain, "bytes", 0) for spec in missing)
        if size > _MOST_FETCHED:
            return (
                f"{megabytes(size):,} MB of text are not fetched yet: nmt-data fetch {' '.join(corpora)} fetches them"
            )
        with open_corpora(corpora, progress):
            return None
    except UserError as error:
        return str(error)


def _estimate_stats(corpus: Corpus, recipe: Recipe) -> Stats:
    """Return statistics as preparing would find them, with tokens estimated from characters."""
    directions = {}
    for direction, splits in corpus.sizes.items():
        sizes: dict[Split, SplitStats] = {}
        for split, (pairs, _, characters) in splits.items():
            source, target = (int(count / _CHARACTERS_PER_PIECE) for count in characters)
            sizes[split] = SplitStats(pairs, source, target, [])
        directions[str(direction)] = DirectionStats(0, {}, sizes)
    return Stats({}, RowLengths(recipe.data.source_length, recipe.data.target_length), directions, [])
