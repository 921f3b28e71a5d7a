"""The vocabularies of a run: one that both sides share, or one of sources and one of targets.

    RUN/vocab/vocab.model                   with vocab.target_size=null
    RUN/vocab/source.model, target.model    otherwise

Tags of languages stand in sources, so the vocabulary of sources has one for every language of the recipe, and one that
is of targets only has none. Padding, begin, end and unknown have the same ids everywhere.
"""

import os
from typing import NamedTuple, Self

from etils import epath

from nmt.config.schema import VocabConfig, VocabularySizes
from nmt.data.vocab import Vocabulary

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
        """Say whether a folder has all model files."""
        return all(file.exists() for file in cls.files(folder, config))

    @classmethod
    def load(cls, folder: os.PathLike[str] | str, config: VocabConfig) -> Self:
        """Read the model files of a folder (RUN/vocab).

        Raises:
          UserError: a file is missing, or no vocabulary of this toolkit.
        """
        source, target = cls.files(folder, config)
        return cls.shared(Vocabulary.load(source)) if source == target else cls(*map(Vocabulary.load, (source, target)))

    @property
    def is_shared(self) -> bool:
        """Whether both sides have the same vocabulary."""
        return self.source.digest == self.target.digest

    @property
    def sizes(self) -> VocabularySizes:
        """The ids of either side."""
        return VocabularySizes(self.source.size, self.target.size)

    @property
    def digests(self) -> dict[str, str]:
        """What identifies the vocabularies, by the words that an error names them with."""
        own = {} if self.is_shared else {"target vocabulary": self.target.digest}
        return {"vocabulary": self.source.digest, **own}

    def __str__(self) -> str:
        if self.is_shared:
            return f"vocabulary: {self.source.size:,} pieces"
        return f"vocabularies: {self.source.size:,} pieces for sources, {self.target.size:,} for targets"
