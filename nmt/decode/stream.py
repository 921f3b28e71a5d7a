"""Documents as streams: bytes in, bytes out, in bounded memory, written in order as soon as they are translated.

Only "\\n" ends a line; a "\\r" before it is kept. Other characters that editors or Python take for a line break are
part of their line. Bytes that are not UTF-8 become U+FFFD, or are refused. A byte-order mark at the beginning stays
there.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from nmt.decode.chunks import ChunkSizes, Stopwatch
from nmt.decode.digits import changed_digits
from nmt.decode.documents.units import DocumentUnit, LineNumbers
from nmt.decode.loops import find_loop
from nmt.decode.translator import Translation

CHUNK_BYTES = 1 << 22
UNKNOWN_SHARE = 0.5  # of a line's letters: a script that the model does not know, rather than a name in it

Translate = Callable[[Sequence[str]], Sequence[Translation]]


@dataclass
class StreamReport:
    """The amount of a stream that is done, and the lines in it that a person should know of.

    Attributes:
      lines: lines that were read and are written.
      texts: texts of them that were translated, or are copied for want of a letter.
      read: bytes of these lines.
      undecodable: lines that were not UTF-8.
      split: lines longer than the sources of training.
      normalised: lines of which more than white space was changed before they were translated.
      unknown: lines with letters that the vocabulary does not have for the most part.
      loops: lines whose translation repeats something in a row, which they do not.
      digits: lines whose translation has other numbers.
      repaired: lines with an address, a placeholder or another span that was put right in the translation.
      damaged: lines of which the translation lacks such a span, or has one that the line has not.
    """

    lines: int = 0
    texts: int = 0
    read: int = 0
    undecodable: LineNumbers = field(default_factory=LineNumbers)
    split: LineNumbers = field(default_factory=LineNumbers)
    normalised: LineNumbers = field(default_factory=LineNumbers)
    unknown: LineNumbers = field(default_factory=LineNumbers)
    loops: LineNumbers = field(default_factory=LineNumbers)
    digits: LineNumbers = field(default_factory=LineNumbers)
    repaired: LineNumbers = field(default_factory=LineNumbers)
    damaged: LineNumbers = field(default_factory=LineNumbers)

    def count(self, unit: DocumentUnit, translations: Sequence[Translation]) -> None:
        """Count a unit that is done."""
        self.lines += unit.lines
        self.texts += len(unit.texts)
        self.read += unit.size
        pairs = [(text, one.text) for text, one in zip(unit.texts, translations, strict=True) if one.parts]
        for numbers, found in (
            (self.loops, any(find_loop(*pair) for pair in pairs)),
            (self.digits, any(changed_digits(*pair) for pair in pairs)),
            (self.split, any(one.split for one in translations)),
            (self.normalised, any(one.normalised for one in translations)),
            (self.unknown, any(one.unknown > UNKNOWN_SHARE for one in translations)),
            (self.repaired, any(one.repaired for one in translations)),
            (self.damaged, any(one.lost_spans or one.surplus_spans for one in translations)),
        ):
            if found:
                numbers.add(unit.line)


def _always() -> bool:
    return True


def translate_units(
    units: Iterable[DocumentUnit],
    write: Callable[[bytes, StreamReport], object],
    translate: Translate,
    report: StreamReport,
    *,
    ready: Callable[[], bool] = _always,
    sizes: ChunkSizes | None = None,
) -> StreamReport:
    """Translate a document chunk by chunk.

    Args:
      units: the document.
      write: takes the output of a chunk, and the report, which counts this chunk already.
      translate: translates texts.
      report: what was done before.
      ready: whether another unit is there without waiting; where there is none, those read so far are translated.
      sizes: sizes of chunks.

    Returns:
      The report, with all units counted.
    """
    sizes = sizes or ChunkSizes()
    watch = Stopwatch()
    for chunk in _chunks(units, ready, sizes):
        watch.restart()
        texts = [text for unit in chunk for text in unit.texts]
        translations = iter(translate(texts) if texts else ())
        output = []
        for unit in chunk:
            own = [next(translations) for _ in unit.texts]
            output.append(unit.compose(own))
            report.count(unit, own)
        sizes.adapt(len(texts), watch.restart())
        write(b"".join(output), report)
    return report


def _chunks(
    units: Iterable[DocumentUnit], ready: Callable[[], bool], sizes: ChunkSizes
) -> Iterator[list[DocumentUnit]]:
    chunk: list[DocumentUnit] = []
    texts = size = 0
    for unit in units:
        chunk.append(unit)
        texts += len(unit.texts)
        size += unit.size
        if texts >= sizes.size or size >= CHUNK_BYTES or not ready():
            yield chunk
            chunk, texts, size = [], 0, 0
    if chunk:
        yield chunk
