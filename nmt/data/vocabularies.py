"""The vocabularies of a run: one that both sides share, or one of sources and one of targets.

    RUN/vocab/vocab.model                   with vocab.target_size=null
    RUN/vocab/source.model, target.model    otherwise

Sources begin with the tag of a language, so the vocabulary of sources has a tag for every language of the recipe. A
vocabulary of targets alone has tags only if the decoder begins with one (data.tags=nllb). Padding, begin, end and
unknown have the same ids everywhere.
"""

import os
from collections.abc import Sequence
from typing import NamedTuple, Self

from etils import epath

from nmt.config.schema import VocabConfig, VocabularySizes
from nmt.data.adoption import adopt
from nmt.data.vocab import Vocabulary, read_model
from nmt.errors import UserError
from nmt.files import atomic_write

SHARED, SOURCE, TARGET = "vocab.model", "source.model", "target.model"


class Vocabularies(NamedTuple):
    """The vocabulary of sources and that of targets; one and the same where both sides share it."""

    source: Vocabulary
    target: Vocabulary

    @classmethod
    def shared(cls, vocabulary: Vocabulary) -> Self:
        """Return one vocabulary for both sides."""
        return cls(vocabulary, vocabulary)

    @staticmethod
    def files(folder: os.PathLike[str] | str, config: VocabConfig) -> tuple[epath.Path, epath.Path]:
        """Return the model files of sources and of targets in a folder (RUN/vocab)."""
        names = (SHARED, SHARED) if config.target_size is None else (SOURCE, TARGET)
        return epath.Path(folder) / names[0], epath.Path(folder) / names[1]

    @classmethod
    def complete(cls, folder: os.PathLike[str] | str, config: VocabConfig) -> bool:
        """Return whether a folder has all model files."""
        return all(file.exists() for file in cls.files(folder, config))

    @classmethod
    def load(cls, folder: os.PathLike[str] | str, config: VocabConfig) -> Self:
        """Read the model files of a folder (RUN/vocab).

        Raises:
          UserError: a file is missing, is no vocabulary of this toolkit, or has another size than in the recipe.
        """
        return cls._loaded(cls.files(folder, config), config)

    @classmethod
    def adopt(
        cls,
        folder: os.PathLike[str] | str,
        config: VocabConfig,
        languages: Sequence[str],
        target_languages: Sequence[str] = (),
        symbols: Sequence[str] = (),
    ) -> Self:
        """Copy the models that the recipe names (vocab.model, vocab.target_model) into a folder, and return them.

        Args:
          folder: RUN/vocab.
          others: as for `read_named`.

        Raises:
          UserError: as `read_named`.
        """
        models, vocabularies = cls._named(config, languages, target_languages, symbols)
        epath.Path(folder).mkdir(parents=True, exist_ok=True)
        for model, file in zip(models, cls.files(folder, config), strict=False):
            with atomic_write(file) as temporary:
                temporary.write_bytes(model)
        return vocabularies

    @classmethod
    def read_named(
        cls,
        config: VocabConfig,
        languages: Sequence[str],
        target_languages: Sequence[str] = (),
        symbols: Sequence[str] = (),
    ) -> Self:
        """Return the vocabularies that the recipe names (vocab.model, vocab.target_model), as a run would have them.

        SentencePiece models of other makers are given tags, symbols and the toolkit's ids; see nmt/data/adoption.py.

        Args:
          config: section of the recipe that names the files.
          languages: languages that need a tag in the vocabulary of sources.
          target_languages: languages that need a tag in the vocabulary of targets.
          symbols: control symbols that the vocabulary of sources needs.

        Raises:
          UserError: one of two models is not named, a language has no tag, or as `load`.
        """
        return cls._named(config, languages, target_languages, symbols)[1]

    @classmethod
    def _named(
        cls, config: VocabConfig, languages: Sequence[str], target_languages: Sequence[str], symbols: Sequence[str]
    ) -> tuple[list[bytes], Self]:
        shared = config.target_size is None
        named = (config.model, config.model if shared else config.target_model)
        if None in named or (shared and config.target_model is not None):
            raise UserError(
                "vocab.model is the vocabulary of both sides, or with vocab.target_size that of sources, and then "
                "vocab.target_model is to be given too"
            )
        sources = epath.Path(str(named[0])), epath.Path(str(named[1]))
        wanted = ((languages, symbols), (target_languages, ()))
        models = [_adopted(path, *tags) for path, tags in zip(sources[: 1 if shared else 2], wanted, strict=False)]
        parts = [Vocabulary(model, str(path)) for model, path in zip(models, sources, strict=False)]
        vocabularies = cls._checked(cls(parts[0], parts[-1]), sources, config)
        for path, vocabulary, needed in zip(sources, vocabularies, (languages, target_languages), strict=True):
            if missing := [language for language in needed if language not in vocabulary.languages]:
                raise UserError(
                    f"{path} has no tag for {', '.join(missing)}; it has {', '.join(vocabulary.languages) or 'none'}"
                )
        for symbol in symbols:
            vocabularies.source.symbol(symbol)
        return models, vocabularies

    @classmethod
    def _loaded(cls, files: tuple[epath.Path, epath.Path], config: VocabConfig) -> Self:
        source, target = files
        loaded = Vocabulary.load(source)
        found = cls.shared(loaded) if source == target else cls(loaded, Vocabulary.load(target))
        return cls._checked(found, files, config)

    @classmethod
    def _checked(cls, found: Self, files: tuple[epath.Path, epath.Path], config: VocabConfig) -> Self:
        """Return the vocabularies; raises UserError if their sizes are not those of the recipe."""
        keys = ("size", "size" if config.target_size is None else "target_size")
        for vocabulary, file, key, wanted in zip(found, files, keys, config.sizes, strict=True):
            if vocabulary.size != wanted:
                raise UserError(
                    f"vocab.{key}={wanted}, but {file} has {vocabulary.size} pieces: "
                    f"set vocab.{key}={vocabulary.size}, or use the vocabulary that belongs to the recipe"
                )
        return found

    @property
    def is_shared(self) -> bool:
        """Whether both sides have the same vocabulary."""
        return self.source.digest == self.target.digest

    @property
    def sizes(self) -> VocabularySizes:
        """The number of ids of each side (V)."""
        return VocabularySizes(self.source.size, self.target.size)

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the vocabularies, by their names in errors."""
        own = {} if self.is_shared else {"target vocabulary": self.target.digest}
        return {"vocabulary": self.source.digest, **own}

    def __str__(self) -> str:
        if self.is_shared:
            return f"vocabulary: {self.source.size:,} pieces"
        return f"vocabularies: {self.source.size:,} pieces for sources, {self.target.size:,} for targets"


def _adopted(path: epath.Path, languages: Sequence[str], symbols: Sequence[str]) -> bytes:
    return adopt(read_model(path), str(path), languages, symbols)
