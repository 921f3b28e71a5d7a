"""How well a vocabulary covers each language: tokens per word and character, unknown pieces and bytes, worst words."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass

from etils import epath

from nmt.data.vocab import Vocabulary
from nmt.files import atomic_write

_MOST_SENTENCES = 2000  # sentences of a language; more would not change the figures
_OFFENDERS = 5


@dataclass(frozen=True)
class Coverage:
    """Measurements of a vocabulary on the text of one language.

    Attributes:
      sentences: sentences that were measured.
      words: words between spaces; for languages written without spaces, look at tokens per character instead.
      characters: characters, spaces aside.
      tokens: pieces, without tags and ends.
      unknown: share of tokens that are the unknown piece; 0 where bytes stand in for it.
      bytes: share of tokens that are single bytes of characters without a piece.
      longest: the words that take most pieces, and the number of these.
    """

    language: str
    sentences: int
    words: int
    characters: int
    tokens: int
    unknown: float
    bytes: float
    longest: dict[str, int]

    @property
    def per_word(self) -> float:
        """Tokens per word (fertility)."""
        return self.tokens / max(1, self.words)

    @property
    def per_character(self) -> float:
        """Tokens per character, spaces aside."""
        return self.tokens / max(1, self.characters)


def measure_coverage(vocabulary: Vocabulary, texts: Mapping[str, Collection[str]]) -> list[Coverage]:
    """Measure every language that has text by its first 2000 sentences; most tokens per character first."""
    found = [_measure(vocabulary, language, some) for language, some in texts.items() if some]
    return sorted(found, key=lambda coverage: (-coverage.per_character, coverage.language))


def _measure(vocabulary: Vocabulary, language: str, texts: Collection[str]) -> Coverage:
    lines = [" ".join(text.split()) for text in itertools.islice(texts, _MOST_SENTENCES)]
    encoded = vocabulary.encode(lines)
    kinds = Counter(vocabulary.kind(piece) for pieces in encoded for piece in pieces)
    tokens = sum(map(len, encoded))
    words = sorted({word for line in lines for word in line.split()})
    pieces = dict(zip(words, map(len, vocabulary.encode(words)), strict=True))
    longest = sorted(words, key=lambda word: (-pieces[word], word))[:_OFFENDERS]
    return Coverage(
        language=language,
        sentences=len(lines),
        words=sum(len(line.split()) for line in lines),
        characters=sum(len(line.replace(" ", "")) for line in lines),
        tokens=tokens,
        unknown=kinds["unknown"] / max(1, tokens),
        bytes=kinds["byte"] / max(1, tokens),
        longest={word: pieces[word] for word in longest},
    )


def write_coverage(found: Iterable[Coverage], folder: os.PathLike[str] | str, name: str = "coverage") -> None:
    """Write the measurements to FOLDER/NAME.tsv and FOLDER/NAME.json."""
    rows = list(found)
    entries = [{**asdict(row), "per_word": row.per_word, "per_character": row.per_character} for row in rows]
    lines = ["\t".join(TITLES) + "\n", *("\t".join(cells(row)) + "\n" for row in rows)]
    for suffix, text in (("json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n"), ("tsv", "".join(lines))):
        with atomic_write(epath.Path(folder) / f"{name}.{suffix}") as temporary:
            temporary.write_text(text)


TITLES = ("language", "sentences", "tokens", "per word", "per character", "unknown", "bytes", "most pieces")


def cells(row: Coverage) -> tuple[str, ...]:
    """Return the cells of a table row, in the order of `TITLES`."""
    longest = ", ".join(f"{word[:24]} {count}" for word, count in list(row.longest.items())[:3])
    shares = (f"{row.unknown:.2%}", f"{row.bytes:.2%}")
    figures = (f"{row.per_word:.2f}", f"{row.per_character:.3f}")
    return row.language, str(row.sentences), str(row.tokens), *figures, *shares, longest
