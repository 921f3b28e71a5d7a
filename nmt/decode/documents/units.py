"""Lines of a document, and the units that a format makes of them."""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

from nmt.decode.translator import Translation
from nmt.errors import UserError

OnError = Literal["replace", "refuse"]
_SHOWN = 5  # numbers of lines in a note


class DocumentLine(NamedTuple):
    """A line of a document."""

    number: int  # from 1
    mark: str  # the byte-order mark, or nothing
    text: str
    end: bytes
    size: int  # bytes read

    @property
    def raw(self) -> bytes:
        """The line as it is written; wrong bytes are U+FFFD."""
        return (self.mark + self.text).encode() + self.end


@dataclass(frozen=True, slots=True)
class DocumentUnit:
    """A stretch of a document that is written at once.

    Attributes:
      line: number of its first line, from 1.
      size: bytes read for it.
      lines: lines read for it.
      texts: texts to be translated.
      compose: makes its bytes of the translations of its texts.
    """

    line: int
    size: int
    lines: int
    texts: tuple[str, ...]
    compose: Callable[[Sequence[Translation]], bytes]

    @classmethod
    def copied(cls, line: DocumentLine) -> "DocumentUnit":
        """Return a line that is written as it is read."""
        return cls(line.number, line.size, 1, (), lambda _: line.raw)


class DocumentFormat(Protocol):
    """A form of documents."""

    def units(self, lines: Iterable[DocumentLine]) -> Iterator[DocumentUnit]:
        """Yield the units of a document in order; together they cover all of its lines.

        Raises:
          UserError: a line has not this form.
        """


@dataclass
class LineNumbers:
    """Numbers of lines that have something in common: how many there are, and the first of them."""

    count: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, number: int) -> None:
        """Add a line."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append(number)

    def __str__(self) -> str:
        """Return the numbers: `line 4`, `lines 2, 5 and 7`, `lines 1, 2, 3, 4, 5 and 95 more`."""
        *others, last = map(str, self.first)
        if self.count > len(self.first):
            others, last = [*others, last], f"{self.count - len(self.first):,} more"
        return f"lines {', '.join(others)} and {last}" if others else f"line {last}"


def decoded_lines(lines: Iterable[bytes], wrong: LineNumbers, on_error: OnError = "replace") -> Iterator[DocumentLine]:
    """Yield lines as text.

    Args:
      lines: lines with their ends; the last may have none.
      wrong: gets the numbers of lines that are not UTF-8.
      on_error: whether bytes that are not UTF-8 become U+FFFD, or end the work.

    Raises:
      UserError: a line is not UTF-8 and is to be refused, or the text is UTF-16.
    """
    for number, raw in enumerate(lines, start=1):
        content = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        body = content.removesuffix(b"\n").removesuffix(b"\r")
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            if number == 1 and raw[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) and b"\x00" in raw:
                raise UserError("the text is UTF-16, not UTF-8: convert it (iconv -f UTF-16 -t UTF-8)") from None
            if on_error == "refuse":
                byte = f"byte {error.start + 1} is 0x{body[error.start]:02X}"
                raise UserError(f"line {number} is not UTF-8 ({byte}); --on-error replace puts U+FFFD there") from None
            text = body.decode(errors="replace")
            wrong.add(number)
        yield DocumentLine(number, "\ufeff" if len(content) < len(raw) else "", text, content[len(body) :], len(raw))
