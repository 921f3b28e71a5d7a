"""Test sets of WMT and IWSLT, of one or more .sgm or .xml files, by direction."""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from etils import epath

from nmt.corpora.readers.file_names import divide_name
from nmt.corpora.readers.files import canonical_code
from nmt.corpora.readers.wmt_sets import SegmentName, WmtSet
from nmt.corpora.readers.wmt_text import WmtSide, read_wmt
from nmt.evaluate.pairs import Pair, open_plain
from nmt.languages import Direction

_KEPT = 4  # sets that are kept in memory


class WmtDirection(NamedTuple):
    """A direction of a test set: its segments with a source and at least one reference."""

    paths: tuple[epath.Path, ...]
    direction: Direction

    def __str__(self) -> str:
        return " and ".join(map(str, self.paths))

    def is_empty(self) -> bool:
        """Return False: the set was read to know its directions."""
        return False

    def check(self) -> None:
        """Read the pairs; raises as `read`."""
        self.read()

    def read(self) -> list[Pair]:
        """Return the pairs, in the order of the sources. Raises UserError: a file cannot be read."""
        found = _gathered(self.paths)
        texts = _list_references(found, self.direction)
        return [
            Pair(source, texts[name][0], tuple(texts[name][1:])) for name, source in _sources(found, self.direction)
        ]

    def left_out(self) -> str:
        """Return how many sources have no reference, and the first of them; empty: all have one."""
        found = _gathered(self.paths)
        missing = [name for name, text in found.sources[self.direction.source].items() if not text.strip()]
        missing += found.sources[self.direction.source].keys() - _list_references(found, self.direction).keys()
        if not missing:
            return ""
        document, number = min(missing)
        count = f"{len(missing):,} segment{'' if len(missing) == 1 else 's'}"
        return f"{self}: {count} of {self.direction} without source or reference, first {number} of {document}"


def open_wmt(paths: Sequence[epath.Path]) -> Iterator[WmtDirection]:
    """Yield the directions of a test set that have segments.

    Raises:
      UserError: a file cannot be read, or does not say its language, neither within nor in its name.
    """
    files = tuple(paths)
    found = _gathered(files)
    for source in found.sources:
        for target in found.references:
            direction = Direction(source, target)
            if source != target and any(_sources(found, direction)):
                yield WmtDirection(files, direction)


def _sources(found: WmtSet, direction: Direction) -> Iterator[tuple[SegmentName, str]]:
    texts = _list_references(found, direction)
    return ((name, text) for name, text in found.sources[direction.source].items() if text.strip() and name in texts)


def _list_references(found: WmtSet, direction: Direction) -> dict[SegmentName, list[str]]:
    """Return the references of each segment that has some, in the order of their authors."""
    texts: dict[SegmentName, list[str]] = {}
    for author in found.references[direction.target].values():
        for name, text in author.items():
            if text.strip():
                texts.setdefault(name, []).append(text)
    return texts


def _gathered(paths: tuple[epath.Path, ...]) -> WmtSet:
    """Return the text of some files, which is kept for the next direction as long as they do not change."""
    stamps = [path.stat() for path in paths]
    return _read(paths, tuple((one.length, one.mtime) for one in stamps))


@functools.lru_cache(maxsize=_KEPT)
def _read(paths: tuple[epath.Path, ...], stamps: tuple[tuple[int, float], ...]) -> WmtSet:
    found = WmtSet()
    for path in paths:
        with open_plain(path) as file:
            for side in read_wmt(file):
                if side.kind != "translation":
                    found.add(side, _language(side, path), str(path))
    return found


def _language(side: WmtSide, path: epath.Path) -> str:
    """Return the language of a document: as it says, or as the name of its file does."""
    if side.language:
        if not (language := canonical_code(side.language)):
            raise ValueError(f"the language {side.language!r} of document {side.document!r} is unknown")
        return language
    if not (language := divide_name(path.name).language):
        raise ValueError("neither the file nor its name says its language; name it as in newstest2014-deen-src.de.sgm")
    return language
