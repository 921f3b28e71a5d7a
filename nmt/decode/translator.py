"""The translator: a run's newest model, text in and text out."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple, Self

import jax
from etils import epath

from nmt.config import Recipe, VocabularySizes, read_run_recipe
from nmt.data.vocab import DOMAIN, Vocabulary
from nmt.data.vocabularies import Vocabularies
from nmt.decode.alignment import Alignment
from nmt.decode.chunks import LARGEST_CHUNK, ChunkSizes, Stopwatch
from nmt.decode.details import DetailOptions, PartTranslation, read_details
from nmt.decode.direction import resolve_direction
from nmt.decode.options import SearchOptions
from nmt.decode.pool import Hypothesis
from nmt.decode.prepared import LinePreparation, PreparedLine
from nmt.decode.ranking import Ranking, rank_hypotheses
from nmt.decode.requests import SpecialTokens
from nmt.decode.scoring import DirectionTokens, PairScore, PairScorer, TokenScore
from nmt.decode.search import Searcher
from nmt.decode.steering.arrays import SteeringCompiler
from nmt.decode.steering.keeping import keep_protected
from nmt.decode.steering.protected import Repair
from nmt.decode.steering.request import SentenceSteering, Steering, SteeringPlanner
from nmt.errors import UserError
from nmt.languages import Direction, get, parse_directions
from nmt.models.building import abstract_model, shardings
from nmt.models.dtypes import inference_config, resolve_precision
from nmt.models.precision import check_precision
from nmt.models.weights import checkpoint_folder, checkpoint_steps, load_model
from nmt.sharding import Layout, make_layout

SPECIALS = 2  # tokens of a source besides its pieces: the tag of a language, and the end


class RankedText(NamedTuple):
    """One of several translations of a line."""

    text: str
    score: float  # as that of the translation


class Translation(NamedTuple):
    """The translation of one line."""

    text: str  # with the white space around and between paragraphs of the line; a line without letters as it is
    score: float  # log probability over GNMT's length normaliser; mean over the parts
    parts: int  # how many parts the line was translated in; 0 if it has no letter, and is copied
    normalised: bool = False  # whether more than white space of the line was changed first, as in training text
    split: bool = False  # whether it, or a paragraph of it, was longer than the model has learnt
    unknown: float = 0.0  # share of its letters that the vocabulary does not have, and spells in bytes
    tokens: tuple[TokenScore, ...] = ()  # of all parts, each with its end, where they were asked for
    alignment: Alignment | None = None  # of words, where it was asked for
    hypotheses: tuple[RankedText, ...] = ()  # all that were asked for, best first; none where one is, or it is copied
    repaired: bool = False  # whether an address, a placeholder or another span that is kept was put right in it
    lost_spans: tuple[str, ...] = ()  # spans of the line that are to be kept, and that it lacks
    surplus_spans: tuple[str, ...] = ()  # spans of such a form that it has, and the line has not, or not as often


class Translator:
    """Translates with the model of a run, for any number of threads at once; `with Translator(run) as translator:`.

    Args:
      run: the run directory.
      step: step of the checkpoint; None: the newest.
      layout: the devices; None: the recipe's mesh if that fits the devices there are, else one device.
      precision: of the weights of dense layers and embeddings: float32, bfloat16 or int8; `auto` for the fastest one on
        these devices; None: the recipe's model.dtype.

    Attributes:
      recipe: the run's recipe.
      vocabularies: its vocabularies, of sources and of targets.
      step: step of the checkpoint that was loaded.
      precision: float32, bfloat16 or int8.

    Raises:
      UserError: no run directory, no such checkpoint, or a damaged one; or no such precision.
    """

    def __init__(
        self,
        run: os.PathLike[str] | str,
        *,
        step: int | None = None,
        layout: Layout | None = None,
        precision: str | None = None,
    ):
        check_precision(precision)
        self._folder = folder = epath.Path(run)
        self.recipe: Recipe = read_run_recipe(folder)
        self.vocabularies = _vocabularies(folder, self.recipe)
        layout = _layout(self.recipe, self.vocabularies.sizes) if layout is None else layout
        with layout.use() as mesh:
            self.precision = resolve_precision(precision, self.recipe.model.dtype)
            config = inference_config(self.recipe.model, self.precision)
            model, self.step = load_model(folder, config, self.vocabularies.sizes, mesh, step)
        specials, longest = _special_tokens(self.vocabularies.target), self.recipe.data.source_length
        self._searcher = Searcher(model, specials, longest, self.recipe.decode, layout, self.precision)
        self._scorer = PairScorer(self._searcher.reader, self.vocabularies, self.recipe.data.clean.unicode)
        self._steering = SteeringCompiler(self.vocabularies.target)
        self._trained = parse_directions(self.recipe.data.directions)

    def __enter__(self) -> Self:
        """Return the translator, which is closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the memory of the model back; the translator cannot translate afterwards."""
        for name in ("_searcher", "_scorer"):
            vars(self).pop(name, None)

    def _check_open(self) -> None:
        if not hasattr(self, "_searcher"):
            raise ValueError("the translator is closed")

    @property
    def identity(self) -> str:
        """A digest that differs where checkpoint, vocabulary or precision do: SHA-256, in hexadecimal digits."""
        written = (checkpoint_folder(self._folder) / str(self.step) / "_CHECKPOINT_METADATA").read_bytes()
        vocabularies = "".join(vocabulary.digest for vocabulary in self.vocabularies)
        return hashlib.sha256(written + f"{vocabularies}{self.precision}".encode()).hexdigest()

    @property
    def languages(self) -> tuple[str, ...]:
        """Canonical codes of the languages that the model knows."""
        return self.vocabularies.source.languages

    def direction(self, source: str, target: str) -> Direction:
        """Return the direction of two languages in any spelling.

        Raises:
          UserError: a language is unknown, or unknown to the model, or both are the same.
        """
        return resolve_direction(self.vocabularies.source, source, target)

    def is_trained(self, direction: Direction) -> bool:
        """Return whether the model was trained on a direction; others of its languages are possible, if worse."""
        return direction in self._trained

    def options(self, **given: Any) -> SearchOptions:
        """Return the options of the run's recipe with those given, by our names or by CTranslate2's.

        Raises:
          UserError: an option is unknown, has no effect, or has a wrong value.
        """
        return SearchOptions.from_config(self.recipe.decode, **given)

    def translate(
        self,
        lines: Sequence[str],
        source: str,
        target: str,
        *,
        beam: int | None = None,
        options: SearchOptions | None = None,
        steering: Steering | None = None,
        ranking: Ranking | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Return one translation a line; see `translate_scored`."""
        found = self.translate_scored(
            lines, source, target, beam=beam, options=options, steering=steering, ranking=ranking, progress=progress
        )
        return [translation.text for translation in found]

    def translate_scored(
        self,
        lines: Sequence[str],
        source: str,
        target: str,
        *,
        beam: int | None = None,
        length_penalty: float | None = None,
        options: SearchOptions | None = None,
        domain: str | None = None,
        steering: Steering | None = None,
        prefixes: Sequence[str | None] | None = None,
        ranking: Ranking | None = None,
        token_scores: bool = False,
        align: bool = False,
        alignment_layer: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Translation]:
        """Translate lines of text.

        Each is first brought to the form of the training text: `nmt.corpora.clean.normalise` with the recipe's
        data.clean.unicode. Lines and paragraphs without a letter (blank ones, figures, punctuation) are copied as they
        are. Paragraphs, which line breaks and tabs separate, are translated one by one, and those with more pieces than
        the model was trained on in parts; white space around and between them is kept.

        Args:
          lines: any texts, of any number of paragraphs.
          source: their language, in any spelling: `de`, `deu`, `de-DE`, `deu_Latn`, `German`.
          target: the language wanted.
          beam: beam width; None: that of `options`.
          length_penalty: exponent of the length normalisation; None: that of `options`.
          options: how to search, see `options`; None: as the recipe says.
          domain: kind of text, one that a corpus of the run declared; None: none.
          steering: prefix, glossary, phrases, and text that is kept; None: addresses, placeholders and tags are kept.
          prefixes: a prefix of its own for each line; None for one that has that of `steering`.
          ranking: chooses among many candidates, such as `nmt.decode.mbr.MinimumBayesRisk`; None: the search does.
          token_scores: whether the log probability of every token is wanted.
          align: whether the words of each line are to be aligned with those of its translation.
          alignment_layer: the decoder layer, from 0, whose attention aligns; None: the last.
          progress: told how many lines are done.

        Returns:
          One translation a line.

        Raises:
          UserError: see `direction`; or the model does not know the domain, or has no such layer; or it gives no finite
            probabilities; or the vocabulary cannot write a prefix or phrase.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be a sequence of texts, not one text")
        self._check_open()
        direction = self.direction(source, target)
        wanted = DetailOptions(token_scores, self._alignment_layer(alignment_layer) if align else None)
        vocabulary = self.vocabularies.source
        marks = [] if domain is None else [vocabulary.symbol(DOMAIN.format(domain))]
        longest = self._searcher.longest - SPECIALS - len(marks)
        preparation = LinePreparation(vocabulary, longest, self.recipe.data.clean.unicode, direction.source)
        prepared = [preparation.prepare(line) for line in lines]
        owner = [number for number, line in enumerate(prepared) for _ in line.parts]
        tag, begin = self._tags(direction)
        sources = [[tag, *marks, *part.pieces, vocabulary.end] for line in prepared for part in line.parts]
        options = self._search_options(options, beam=beam, length_penalty=length_penalty)
        told = _progress_by_line(owner, len(lines), progress)
        shown = options.hypotheses
        if ranking is not None:
            options = ranking.candidate_options(options)
        part_texts = [part.text for line in prepared for part in line.parts]

        def search(places: Sequence[int], plans: Sequence[SentenceSteering]) -> list[tuple[list[Hypothesis], str]]:
            found = self._searcher.search(
                [sources[place] for place in places],
                options=options,
                begin=begin,
                steering=self._steering.sentences(plans),
                progress=told if len(places) == len(sources) else None,
            )
            if ranking is not None:
                candidates = [self.vocabularies.target.decode([one.tokens for one in several]) for several in found]
                found = rank_hypotheses(ranking, [part_texts[place] for place in places], found, candidates)
                found = [several[:shown] for several in found]
            texts = self.vocabularies.target.decode([hypotheses[0].tokens for hypotheses in found])
            return list(zip(found, texts, strict=True))

        planner = self._steering.planner(steering)
        plans = _plans(planner, prepared, prefixes)
        kept = keep_protected(planner, plans, search(range(len(sources)), plans), search)
        found = [one.found for one in kept]
        ranks = range(max(map(len, found), default=1))
        # A part with fewer hypotheses than others goes on with its last one.
        ranked = [[hypotheses[min(rank, len(hypotheses) - 1)] for hypotheses in found] for rank in ranks]
        outputs = [self.vocabularies.target.decode([one.tokens for one in best]) for best in ranked]
        repaired = [planner.repair(plans, texts) for texts in outputs]
        languages = get(direction.source), get(direction.target)
        targets = [hypothesis.tokens for hypothesis in ranked[0]]
        translations = list(map(PartTranslation, sources, targets, outputs[0]))
        tokens = DirectionTokens((tag, *marks), begin)
        details = read_details(prepared, translations, self._scorer, tokens, languages, wanted)
        result, used = [], 0
        for line, more in zip(prepared, details, strict=True):
            here = slice(used, used := used + len(line.parts))
            texts = [
                RankedText(line.assemble(text[here], *languages), _mean_score(best[here]))
                for text, best in zip(repaired, ranked, strict=True)
            ]
            several = tuple(dict.fromkeys(texts)) if len(ranks) > 1 and line.parts else ()
            text, score = texts[0]
            about = line.normalised, line.split, line.unknown
            one = Translation(text, score, len(line.parts), *about, *more, several)
            result.append(_told(one, [part.repair for part in kept[here]]))
        return result

    def score(
        self,
        sources: Sequence[str],
        targets: Sequence[str],
        source: str,
        target: str,
        *,
        length_penalty: float | None = None,
        options: SearchOptions | None = None,
        domain: str | None = None,
        align: bool = False,
        alignment_layer: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[PairScore]:
        """Return the log probabilities of given translations, by reading them.

        Both sides are brought to the form of the training text first. A pair of blank texts has score 0 and no tokens;
        one that is longer than the model can read has score nan.

        Args:
          sources: any texts; a line break within one counts as a space.
          targets: their translations, as many.
          source: the language of the sources, in any spelling.
          target: the language of the translations.
          length_penalty: exponent of the length normalisation; None: that of `options`.
          options: how scores are normalised; None: as the recipe says.
          domain: kind of text, one that a corpus of the run declared; None: none.
          align: whether words are aligned.
          alignment_layer: the decoder layer, from 0, whose attention aligns; None: the last.
          progress: told how many pairs are done.

        Returns:
          One score a pair.

        Raises:
          UserError: unequal numbers of texts; see `direction`; or the model does not know the domain, or has no such
            layer.
        """
        if isinstance(sources, str) or isinstance(targets, str):
            raise TypeError("sources and targets must be sequences of texts, not one text")
        if len(sources) != len(targets):
            raise UserError(f"{len(sources)} sources, but {len(targets)} translations to score")
        direction = self.direction(source, target)
        marks = [] if domain is None else [self.vocabularies.source.symbol(DOMAIN.format(domain))]
        tag, begin = self._tags(direction)
        self._check_open()
        return self._scorer.score(
            sources,
            targets,
            DirectionTokens((tag, *marks), begin),
            self._search_options(options, length_penalty=length_penalty),
            self._alignment_layer(alignment_layer) if align else None,
            progress,
        )

    def _alignment_layer(self, layer: int | None) -> int:
        layers = self.recipe.model.decoder_layers
        if layer is not None and not 0 <= layer < layers:
            raise UserError(f"the decoder has no layer {layer}: its layers are 0 to {layers - 1}")
        return layers - 1 if layer is None else layer

    def translate_stream(
        self, lines: Iterable[str], source: str, target: str, *, chunk_lines: int = LARGEST_CHUNK, **arguments: Any
    ) -> Iterator[str]:
        """Yield one translation a line, of any number of lines in bounded memory; see `translate_scored_stream`."""
        found = self.translate_scored_stream(lines, source, target, chunk_lines=chunk_lines, **arguments)
        return (translation.text for translation in found)

    def translate_scored_stream(
        self, lines: Iterable[str], source: str, target: str, *, chunk_lines: int = LARGEST_CHUNK, **arguments: Any
    ) -> Iterator[Translation]:
        """Translate lines as they come.

        The iterator is lazy: it reads lines when translations are asked of it, a chunk at a time. The first chunk is
        one line, and later ones grow as long as they are done within seconds.

        Args:
          lines: any texts, also without end.
          source: their language, in any spelling.
          target: the language wanted.
          chunk_lines: most lines that are read before their translations are yielded; 1: each is answered at once.
          **arguments: of `translate_scored`, but `progress`.

        Returns:
          An iterator of one translation a line, in order.

        Raises:
          UserError: see `direction`, at once; others as `translate_scored`, once a translation is asked for.
        """
        if isinstance(lines, str):
            raise TypeError("lines must be an iterable of texts, not one text")
        if chunk_lines < 1:
            raise UserError(f"chunk_lines must be at least 1 (not {chunk_lines})")
        self.direction(source, target)
        sizes = ChunkSizes(1, largest=chunk_lines, smallest=1)

        def translations() -> Iterator[Translation]:
            left = iter(lines)
            watch = Stopwatch()
            while chunk := list(islice(left, sizes.size)):
                watch.restart()
                found = self.translate_scored(chunk, source, target, **arguments)
                sizes.adapt(len(chunk), watch.restart())
                yield from found

        return translations()

    def _tags(self, direction: Direction) -> tuple[int, int]:
        """Return the tag before a source, and the decoder's first input, as the recipe's data.tags says."""
        source, target = self.vocabularies
        if self.recipe.data.tags == "target":
            return source.tag(direction.target), target.begin
        return source.tag(direction.source), target.tag(direction.target)

    def _search_options(self, options: SearchOptions | None, **given: float | None) -> SearchOptions:
        """Return options as the searcher takes them: texts to be suppressed as token ids."""
        options = (options or self.options()).changed(**{key: one for key, one in given.items() if one is not None})
        encode = self.vocabularies.target
        suppress: list[tuple[int, ...]] = []
        for one in options.suppress:
            ways = (encode.encode([one])[0], encode.encode_inside(one)) if isinstance(one, str) else (one,)
            suppress += (tuple(way) for way in ways)
        return replace(options, suppress=tuple(dict.fromkeys(suppress)))


def _told(translation: Translation, repairs: Sequence[Repair]) -> Translation:
    """Return a translation with what became of the spans that it is to keep."""
    return translation._replace(
        repaired=any(one.changed for one in repairs),
        lost_spans=tuple(span for one in repairs for span in one.missing),
        surplus_spans=tuple(span for one in repairs for span in one.surplus),
    )


def _plans(
    planner: SteeringPlanner, lines: Sequence[PreparedLine], prefixes: Sequence[str | None] | None
) -> list[SentenceSteering]:
    """Return the steering of every part of every line."""
    prefixes = [None] * len(lines) if prefixes is None else prefixes
    if isinstance(prefixes, str) or len(prefixes) != len(lines):
        raise ValueError(f"{len(prefixes)} prefixes for {len(lines)} lines")
    return [
        planner.plan(part.text, first=number == 0, prefix=prefix)
        for line, prefix in zip(lines, prefixes, strict=True)
        for number, part in enumerate(line.parts)
    ]


def _vocabularies(folder: epath.Path, recipe: Recipe) -> Vocabularies:
    try:
        return Vocabularies.load(folder / "vocab", recipe.vocab)
    except UserError:
        if checkpoint_steps(folder):
            raise
        raise UserError(f"{folder} has no checkpoint yet: its training has not begun (nmt-train)") from None


def _special_tokens(vocabulary: Vocabulary) -> SpecialTokens:
    tags = map(vocabulary.tag, vocabulary.languages)
    symbols = map(vocabulary.symbol, vocabulary.symbols)
    forbidden = frozenset({vocabulary.pad, vocabulary.unk, *tags, *symbols})
    return SpecialTokens(vocabulary.begin, vocabulary.end, forbidden, vocabulary.unk)


def _layout(recipe: Recipe, vocabulary: VocabularySizes) -> Layout:
    """Return the recipe's mesh over the devices of this host, or one device where it does not fit.

    A run is often used on a smaller machine; and a host of several translates by itself.
    """
    devices = jax.local_devices()
    try:
        layout = make_layout(recipe.mesh.model_copy(update={"axis_types": "auto"}), devices)
        if layout.mesh.size > 1:
            with layout.use() as mesh:
                shardings(abstract_model(recipe.model, vocabulary)[1], mesh)
    except UserError:
        return make_layout(devices=devices[:1])
    return layout


def _progress_by_line(
    owner: Sequence[int], lines: int, progress: Callable[[int], None] | None
) -> Callable[[Sequence[int]], None] | None:
    """Return a progress by parts that reports lines; `owner` is the line of each part."""
    if progress is None:
        return None
    left = Counter(owner)
    tell = progress

    def report(parts: Sequence[int]) -> None:
        left.subtract(owner[part] for part in parts)
        tell(lines - sum(count > 0 for count in left.values()))

    return report


def _mean_score(hypotheses: Sequence[Hypothesis]) -> float:
    return sum(hypothesis.score for hypothesis in hypotheses) / len(hypotheses) if hypotheses else 0.0
