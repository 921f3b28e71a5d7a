"""Sentences with their references, and files that have a pair a line.

A .tsv line is source<TAB>target; a .jsonl line is {"source": ..., "target": ...}, further fields being ignored. A .tsv
file of TICO-19 names its columns, and has the languages in every line.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple, Protocol

from etils import epath

from nmt.corpora.readers.compressed import decompressed, stem
from nmt.corpora.readers.files import check_line_ends
from nmt.corpora.readers.tree import UNREADABLE, error_reason
from nmt.errors import UserError

TICO_COLUMNS = ("sourceLang", "targetLang", "sourceString", "targetString")


class Pair(NamedTuple):
    """A source sentence, its reference translation, and further references where there are several."""

    source: str
    target: str
    others: tuple[str, ...] = ()


class PairSource(Protocol):
    """The pairs of a direction: where they lie; nothing is read before it is asked for."""

    def read(self) -> list[Pair]:
        """Return the pairs. Raises UserError: they cannot be read, are malformed, or do not fit together."""

    def check(self) -> None:
        """Check, without reading more than need be, that the pairs can be read; raises as `read`."""

    def is_empty(self) -> bool:
        """Return whether there is not even a file with content."""

    def __str__(self) -> str:
        """Return the name of the file or files, for messages."""


class PairFile:
    """A .tsv or .jsonl file with a pair a line, compressed or not."""

    def __init__(self, path: epath.Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def is_empty(self) -> bool:
        """Return whether the file is empty."""
        return bool(self.path.stat().length == 0)

    def check(self) -> None:
        """Read the pairs; raises as `read`."""
        self.read()

    def read(self) -> list[Pair]:
        """Return the pairs, one a line.

        Raises:
          UserError: the file cannot be read, or a line is malformed.
        """
        parse, expected = PAIR_ENDINGS[pair_ending(self.path)]
        pairs = []
        for number, line in enumerate(read_lines(self.path), start=1):
            pair = parse(line)
            if pair is None or not all(side.strip() for side in pair[:2]):
                raise UserError(f"{self.path}:{number}: expected {expected}, neither of them blank")
            pairs.append(pair)
        return pairs


class TicoFile:
    """A .tsv file of TICO-19, in one of its two directions."""

    def __init__(self, path: epath.Path, swapped: bool) -> None:
        self.path, self._swapped = path, swapped

    def __str__(self) -> str:
        return str(self.path)

    def is_empty(self) -> bool:
        """Return whether the file has nothing but its heading."""
        return False

    def check(self) -> None:
        """Read the pairs; raises as `read`."""
        self.read()

    def read(self) -> list[Pair]:
        """Return the pairs, one a line. Raises UserError: the file cannot be read, or a line is malformed."""
        heading, *lines = (line.split("\t") for line in read_lines(self.path))
        codes, columns = ([heading.index(name) for name in part] for part in (TICO_COLUMNS[:2], TICO_COLUMNS[2:]))
        pairs = []
        for number, cells in enumerate(lines, start=2):
            sides = [cells[column].strip() for column in columns if column < len(cells)]
            if len(cells) > len(heading) or len(sides) < 2 or not all(sides):
                raise UserError(
                    f"{self.path}:{number}: expected {' and '.join(TICO_COLUMNS[2:])}, neither of them blank"
                )
            if any(cells[column] != lines[0][column] for column in codes):
                raise UserError(f"{self.path}:{number}: another direction than on line 2: make a file of each")
            source, target = sides[::-1] if self._swapped else sides
            pairs.append(Pair(source, target))
        return pairs


@contextlib.contextmanager
def open_plain(path: epath.Path) -> Iterator[IO[bytes]]:
    """Open a file, decompressed; raises UserError, here or while it is read, if it cannot be read."""
    try:
        with path.open("rb") as raw, decompressed(raw, str(path)) as file:
            yield file
    except UNREADABLE as error:
        raise UserError(f"cannot read {path}: {error_reason(error)}") from None


def read_lines(path: epath.Path) -> list[str]:
    """Return the lines of a file; they end with a newline and with nothing else (U+2028, for one, is text).

    Raises:
      UserError: it cannot be read, is not UTF-8, or has line ends that are not read.
    """
    with open_plain(path) as file:
        content = file.read()
    try:
        lines = content.decode("utf-8-sig").split("\n")
        check_line_ends(content if len(lines) == 1 else b"")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}): convert it") from None
    except ValueError as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def content_hash(pairs: Iterable[Pair]) -> str:
    """Return the SHA-256 of the pairs, whatever kind of file they came from."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(json.dumps([pair.source, pair.target, *pair.others]).encode() + b"\n")
    return digest.hexdigest()


def pair_ending(path: epath.Path) -> str:
    """Return the ending of a name without that of its compression: `.tsv`."""
    return epath.Path(stem(path.name)).suffix


def _parse_json(line: str) -> Pair | None:
    try:
        values = json.loads(line)
        source, target = values["source"], values["target"]
        f"{source}{target}".encode()  # half a surrogate pair, which JSON can spell, is no text
    except (ValueError, TypeError, KeyError):
        return None
    return Pair(source, target) if isinstance(source, str) and isinstance(target, str) else None


def _parse_tsv(line: str) -> Pair | None:
    sides = line.split("\t")
    return Pair(sides[0], sides[1]) if len(sides) == 2 else None


PAIR_ENDINGS: dict[str, tuple[Callable[[str], Pair | None], str]] = {
    ".jsonl": (_parse_json, '{"source": ..., "target": ...}'),
    ".tsv": (_parse_tsv, "source<TAB>target"),
}
