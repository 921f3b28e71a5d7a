"""The stages before training: text, vocabulary, prepared store. Finished stages are not repeated."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict

from etils import epath

from nmt.config import Recipe
from nmt.corpora import Corpus, inputs_digest, load_pairs
from nmt.corpora.cleaned.texts import training_texts
from nmt.corpora.declare.spec import CorpusSpec, load_specs
from nmt.corpora.opening import named_corpora
from nmt.data.coverage import changed_line, measure_coverage, write_coverage
from nmt.data.marks import Marks
from nmt.data.mixture import denoising_directions
from nmt.data.store import RowLengths, Stats, StoreOrigin, digests, is_prepared, load_stats, prepare
from nmt.data.vocab import learn
from nmt.data.vocabularies import SHARED, SOURCE, TARGET, Vocabularies
from nmt.errors import UserError
from nmt.files import atomic_write
from nmt.languages import Direction, parse_directions
from nmt.progress import Reporter

VOCABULARY, STORE = "vocab", "data"  # folders of a run


def recipe_directions(recipe: Recipe) -> tuple[Direction, ...]:
    """Return the directions of a recipe, canonical, in its order."""
    return parse_directions(recipe.data.directions)


def recipe_languages(recipe: Recipe) -> list[str]:
    """Return the languages of a recipe, sorted: those that get a tag."""
    return sorted(
        {code for direction in (*recipe_directions(recipe), *denoising_directions(recipe.data)) for code in direction}
    )


class RunPreparation:
    """Text, vocabulary and store of one run, each made when it is first needed and missing.

    Args:
      recipe: the resolved recipe.
      run: the run's folder.
      progress: told of every stage.
    """

    def __init__(self, recipe: Recipe, run: epath.Path, progress: Reporter):
        self.recipe, self.run, self.progress = recipe, run, progress
        self.directions = recipe_directions(recipe)
        specs = load_specs(recipe.data.corpora)
        texts = denoising_directions(recipe.data)
        self._marks = Marks.collect(specs, domains=recipe.data.domain_tags, denoise=bool(texts))
        self._streams = (*self.directions, *texts)
        _check_denoising(specs, bool(texts))
        if recipe.data.mixture.back_translated is not None and not self._marks.synthetic:
            raise UserError(
                "data.mixture.back_translated is given, but no declaration among data.corpora says synthetic: true"
            )
        self._specs = specs
        self._corpus: Corpus | None = None

    @functools.cached_property
    def _corpus_digest(self) -> str:
        """A hash of all that determines the text; a person's own files are read for it."""
        data = self.recipe.data
        return inputs_digest(self._specs, self._streams, data.clean, self.progress, named_corpora(data.corpora))

    @property
    def store(self) -> epath.Path:
        """The folder of the prepared store."""
        return self.run / STORE

    def corpus(self) -> Corpus:
        """Return the clean text, fetched if it must be."""
        if self._corpus is None:
            data = self.recipe.data
            self._corpus = load_pairs(data.corpora, self._streams, data.clean, self.progress)
            rows = ", ".join(f"{count:,} {split}" for split, count in self._corpus.rows.items())
            self.progress.say(f"corpus: {', '.join(data.corpora)} ({rows} rows of text)")
        return self._corpus

    def vocabularies(self) -> Vocabularies:
        """Return the vocabularies, learnt if there are none.

        Raises:
          UserError: there are some that were learnt from another input.
        """
        config, folder = self.recipe.vocab, self.run / VOCABULARY
        record = folder / "inputs.json"
        inputs = {"corpus": self._corpus_digest, "seed": self.recipe.seed, **config.model_dump(mode="json")}
        if config.target_size is not None and self._target_tags:
            inputs["tags of targets"] = self._target_tags
        if self._marks.symbols:
            inputs["symbols"] = self._marks.symbols
        if record.exists():
            # Vocabularies that were learnt before there were these keys were learnt so.
            before = {"normalisation": "nfkc", "split_digits": False}
            changed = _changed(before | json.loads(record.read_text()), inputs)
            if changed:
                raise UserError(
                    f"{folder} was learnt from another input (changed: {', '.join(changed)}); "
                    f"start afresh with another run_dir, or delete {self.run}"
                )
            if Vocabularies.complete(folder, config):
                return Vocabularies.load(folder, config)
        if not self._named:
            vocabularies = self._learn(folder)
        else:
            symbols = self._marks.symbols
            vocabularies = Vocabularies.adopt(folder, config, recipe_languages(self.recipe), self._target_tags, symbols)
        self._report(vocabularies, folder)
        with atomic_write(record) as temporary:
            temporary.write_text(json.dumps(inputs, indent=2) + "\n")
        self.progress.say(str(vocabularies))
        return vocabularies

    @property
    def _named(self) -> bool:
        """Whether the recipe names a vocabulary, so that none is learnt."""
        config = self.recipe.vocab
        return config.model is not None or config.target_model is not None

    def read_named_vocabularies(self) -> Vocabularies | None:
        """Return the vocabularies that the recipe names, as they would be in the run; writes nothing.

        None: it names none, or the run has its vocabularies already.

        Raises:
          UserError: one is missing, is no SentencePiece model, or has another size than in the recipe.
        """
        if not self._named or (self.run / VOCABULARY / "inputs.json").exists():
            return None
        symbols = self._marks.symbols
        return Vocabularies.read_named(self.recipe.vocab, recipe_languages(self.recipe), self._target_tags, symbols)

    def _learn(self, folder: epath.Path) -> Vocabularies:
        recipe, corpus, tags = self.recipe, self.corpus(), recipe_languages(self.recipe)
        symbols = self._marks.symbols
        with self.progress.wait("learning the vocabulary"):
            if recipe.vocab.target_size is None:
                texts = training_texts(corpus, (0, 1))
                return Vocabularies.shared(
                    learn(texts, tags, recipe.vocab, folder / SHARED, recipe.seed, symbols=symbols)
                )
            texts = training_texts(corpus, (0,))
            source = learn(texts, tags, recipe.vocab, folder / SOURCE, recipe.seed, symbols=symbols)
            texts, tags = training_texts(corpus, (1,)), self._target_tags
            target = learn(texts, tags, recipe.vocab, folder / TARGET, recipe.seed, "target_size")
            return Vocabularies(source, target)

    @property
    def _target_tags(self) -> list[str]:
        """The languages that need a tag in the vocabulary of targets."""
        return recipe_languages(self.recipe) if self.recipe.data.tags == "nllb" else []

    def _report(self, vocabularies: Vocabularies, folder: epath.Path) -> None:
        """Write how the vocabularies cover each language: vocab/coverage.tsv, or one file a vocabulary."""
        sides = {"coverage": (0, 1)} if vocabularies.is_shared else {"coverage.source": (0,), "coverage.target": (1,)}
        for vocabulary, (name, columns) in zip(vocabularies, sides.items(), strict=False):
            found = measure_coverage(vocabulary, training_texts(self.corpus(), columns))
            write_coverage(found, folder, name)
            worst = max(found, key=lambda row: row.per_word)
            self.progress.say(
                f"{name}: {len(found)} languages, up to {worst.per_word:.2f} tokens per word ({worst.language}), "
                f"{max(row.bytes for row in found):.2%} bytes; {folder / f'{name}.tsv'}"
            )
            if changed := changed_line(found):
                self.progress.say(
                    f"warning: the vocabulary changes text by its rule {vocabulary.normalisation}: {changed}; "
                    f"nmt-vocab --report {self.run} has all"
                )

    def stats(self, vocabularies: Vocabularies) -> Stats:
        """Return the statistics of the prepared store, prepared if it is not.

        Raises:
          UserError: there is one that was prepared from another input.
        """
        data = self.recipe.data
        lengths = RowLengths(data.source_length, data.target_length)
        cleaning = hashlib.sha256(data.clean.model_dump_json().encode()).hexdigest()
        inputs = digests(self._corpus_digest, cleaning, vocabularies, lengths, self._streams)
        if self._marks.domains:
            inputs["domains"] = " ".join(f"{name}{symbol}" for name, symbol in sorted(self._marks.domains.items()))
        if is_prepared(self.store, inputs):
            return load_stats(self.store)
        corpus = self.corpus()
        with self.progress.wait("preparing token ids"):
            stats = prepare(
                {direction: self._marks.mark_pairs(direction, splits) for direction, splits in corpus.pairs.items()},
                vocabularies,
                self.store,
                lengths,
                StoreOrigin(
                    digests=inputs,
                    rejected=corpus.rejections,
                    corpora=[asdict(source) for source in corpus.provenance],
                    test_sets=[one._asdict() for one in corpus.test_sets],
                ),
            )
        pairs = sum(direction.splits["train"].pairs for direction in stats.directions.values())
        tokens = sum(direction.splits["train"].target_tokens for direction in stats.directions.values())
        self.progress.say(f"store: {pairs:,} training pairs, {tokens:,} target tokens{stats.describe_too_long()}")
        return stats


def _check_denoising(specs: Sequence[CorpusSpec], wanted: bool) -> None:
    """Raise UserError where monolingual corpora and data.denoise.languages do not go together."""
    alone = [spec.name for spec in specs if spec.monolingual]
    if wanted and not alone:
        raise UserError("data.denoise.languages is given, but no declaration among data.corpora says monolingual: true")
    if alone and not wanted:
        raise UserError(
            f"{', '.join(alone)} among data.corpora is monolingual: say with data.denoise.languages which languages "
            "are learnt from it, or leave it out"
        )


def _changed(old: dict[str, object], new: dict[str, object]) -> list[str]:
    return [key for key in new if old.get(key) != new[key]]
