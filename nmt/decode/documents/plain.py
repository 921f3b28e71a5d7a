"""Plain text: every line is translated."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from nmt.decode.documents.units import DocumentLine, DocumentUnit
from nmt.decode.translator import Translation


@dataclass(frozen=True)
class PlainLines:
    """Lines of text; `render` makes the line of output of a translation."""

    render: Callable[[Translation], str]

    def units(self, lines: Iterable[DocumentLine]) -> Iterator[DocumentUnit]:
        """Yield every line."""
        for line in lines:
            yield DocumentUnit(line.number, line.size, 1, (line.text,), self._composer(line))

    def _composer(self, line: DocumentLine) -> Callable[[Sequence[Translation]], bytes]:
        return lambda translations: (line.mark + self.render(translations[0])).encode() + line.end
