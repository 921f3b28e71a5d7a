"""The coverage of each language by a vocabulary: tokens per word and character, bytes, worst words, lost characters."""

import itertools
import json
import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field

from etils import epath

from nmt.data.round_trip import name_character, round_trip
from nmt.data.vocab import Vocabulary
from nmt.files import atomic_write

_MOST_SENTENCES = 2000  # sentences of a language; more would not change the figures
_OFFENDERS = 5
_CHARACTERS = 20  # most characters that are named


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
      changed: share of sentences that do not come back from encoding and decoding.
      lost: the characters that are lost in these by code point and name, with how often, most frequent first.
    """

    language: str
    sentences: int
    words: int
    characters: int
    tokens: int
    unknown: float
    bytes: float
    longest: dict[str, int]
    changed: float = 0.0
    lost: dict[str, int] = field(default_factory=dict)

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
    back = round_trip(vocabulary, lines, encoded)
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
        changed=back.changed / len(lines),
        lost={name_character(one): count for one, count in itertools.islice(back.lost.items(), _CHARACTERS)},
    )


def write_coverage(found: Iterable[Coverage], folder: os.PathLike[str] | str, name: str = "coverage") -> None:
    """Write the measurements to FOLDER/NAME.tsv and FOLDER/NAME.json."""
    rows = list(found)
    entries = [{**asdict(row), "per_word": row.per_word, "per_character": row.per_character} for row in rows]
    lines = ["\t".join(TITLES) + "\n", *("\t".join(cells(row)) + "\n" for row in rows)]
    for suffix, text in (("json", json.dumps(entries, ensure_ascii=False, indent=1) + "\n"), ("tsv", "".join(lines))):
        with atomic_write(epath.Path(folder) / f"{name}.{suffix}") as temporary:
            temporary.write_text(text)


CHANGED, LOST = "changed", "lost"
TITLES = (
    *("language", "sentences", "tokens", "per word", "per character", "unknown", "bytes", CHANGED, "most pieces"),
    LOST,
)


def cells(row: Coverage) -> tuple[str, ...]:
    """Return the cells of a table row, in the order of `TITLES`."""
    longest = ", ".join(f"{word[:24]} {count}" for word, count in list(row.longest.items())[:3])
    shares = (f"{row.unknown:.2%}", f"{row.bytes:.2%}", f"{row.changed:.2%}")
    figures = (f"{row.per_word:.2f}", f"{row.per_character:.3f}")
    lost = ", ".join(f"{name} {count}" for name, count in row.lost.items())
    return row.language, str(row.sentences), str(row.tokens), *figures, *shares, longest, lost


def changed_line(found: Iterable[Coverage]) -> str | None:
    """Return a line about the text that a vocabulary changes; None if everything comes back."""
    changed = sorted((row for row in found if row.changed), key=lambda row: (-row.changed, row.language))
    if not changed:
        return None
    worst = changed[0]
    lost = ", ".join(itertools.islice(worst.lost, 3))
    others = f", and of {len(changed) - 1} languages more" if len(changed) > 1 else ""
    return f"{worst.changed:.2%} of the lines of {worst.language} do not come back ({lost}){others}"
