"""The part that readers of files share, where a file may be of one direction: finding the files, and lines of text."""

from collections.abc import Iterator

from nmt import languages
from nmt.corpora.declare.spec import CorpusSpec
from nmt.corpora.readers.reader import EMPTY, CorpusReader
from nmt.corpora.readers.tree import UNREADABLE, Tree
from nmt.errors import UserError

NOT_UTF8 = "line that is not UTF-8"

_BOM = b"\xef\xbb\xbf"
_BOMS_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class FilesReader(CorpusReader):
    """An open corpus of files, of which some may be of one direction.

    Attributes:
      directions: pairs of canonical codes that some file has both languages of.
    """

    def __init__(self, spec: CorpusSpec, tree: Tree) -> None:
        super().__init__(spec)
        self._tree = tree
        self.directions: set[frozenset[str]] = set()

    def _pairs(self, source: str, target: str) -> bool:
        """Return whether there is a file of a direction (canonical codes), in either order."""
        return frozenset((source, target)) in self.directions

    def _note(self, *groups: frozenset[str]) -> None:
        """Note which languages stand side by side."""
        for group in groups:
            self.directions |= {frozenset((one, other)) for one in group for other in group if one != other}
        sides = groups if self.spec.monolingual else self.directions
        self.languages = sorted({language for side in sides for language in side})
        if not self.languages:
            raise self._without_languages()

    def _without_languages(self) -> UserError:
        """Return why there is nothing to read."""
        if self._damages():
            return self._nothing_read()
        what = "text of a language" if self.spec.monolingual else "text of two languages that belongs together"
        return UserError(f"corpus {self.spec.name}: no file has {what}{self._unknown()}")

    def _check(self, patterns: tuple[str, ...], found: int) -> None:
        if not found:
            raise UserError(f"corpus {self.spec.name}: there is no file like {self._tree.missing(patterns)}")

    def _lines(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the lines of a file, with their numbers from 1, as far as it can be read."""
        return ((number, text) for number, text, _ in self._decoded_lines(name) if text is not None)

    def _decoded_lines(self, name: str) -> Iterator[tuple[int, str | None, bytes]]:
        """Yield the lines of a file as `_lines` does, None where one is no text, and as they stand in the file."""
        done = 0
        try:
            with self._tree.plain(name) as file:
                for number, line in enumerate(file, start=1):
                    yield number, self._decoded(line, name, number), line
                    done = number
        except UNREADABLE as error:
            self._unread(name, error, done)
            return
        if not done:
            self._skip(EMPTY, name)

    def _decoded(self, line: bytes, name: str, number: int) -> str | None:
        """Return the text of a line, None where it is none.

        Raises:
          ValueError: it is the first line of a file in another encoding, or with line ends that are not read.
        """
        if number == 1:
            if line.startswith(_BOMS_UTF16):
                raise ValueError("it is UTF-16, and must be converted to UTF-8")
            line = line.removeprefix(_BOM)
            check_line_ends(line)
        try:
            return line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            self._skip(NOT_UTF8, f"{name}:{number}")
            return None

    def close(self) -> None:
        """Nothing stays open but the corpus's archives."""
        self._tree.close()


def check_line_ends(first: bytes) -> None:
    """Check the first line of a file. Raises ValueError: lines end with a carriage return alone, so it is all of it."""
    if b"\r" in first.rstrip(b"\r\n") and not first.endswith(b"\n"):
        raise ValueError("its lines end with a carriage return alone: convert it, as by tr '\\r' '\\n'")


def canonical_code(code: str) -> str | None:
    """Return the canonical code of a language that the registry knows, or None."""
    try:
        return languages.get(code).code
    except UserError:
        return None
