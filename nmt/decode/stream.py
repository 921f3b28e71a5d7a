"""Streams of lines: bytes in, bytes out, N lines in and N lines out, in bounded memory.

Only "\\n" ends a line; a "\\r" before it is kept. Other characters that editors or Python take for a line break are
part of their line. Bytes that are not UTF-8 become U+FFFD. A byte-order mark at the beginning stays there.
"""

import codecs
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nmt.decode.translator import Translation

CHUNK_LINES = 4096
CHUNK_BYTES = 1 << 22

Translate = Callable[[Sequence[str], Callable[[int], None]], Sequence[Translation]]  # lines, progress


@dataclass
class StreamReport:
    """Counts of lines that a person should know of after a stream."""

    lines: int = 0
    undecodable: int = 0  # lines that were not UTF-8
    first_undecodable: int = 0  # number of the first of them, from 1
    split: int = 0  # lines that were translated in parts
    normalised: int = 0  # lines of which more than white space was changed before they were translated
    first_normalised: int = 0  # number of the first of them, from 1


class _Line(NamedTuple):
    number: int  # from 1
    mark: str  # the byte-order mark, or nothing
    text: str
    end: bytes
    size: int  # bytes read


def translate_stream(
    lines: Iterable[bytes],
    write: Callable[[bytes], object],
    translate: Translate,
    render: Callable[[Translation], str],
    *,
    chunk_lines: int = CHUNK_LINES,
    progress: Callable[[int], None] | None = None,
) -> StreamReport:
    """Translate lines chunk by chunk.

    Args:
      lines: lines with their ends, such as a binary file; the last may have none.
      write: takes the output, one call a chunk.
      translate: translates lines of text.
      render: makes one line of text of a translation.
      chunk_lines: most lines that are read before their translations are written.
      progress: told how many bytes of the input are done.
    """
    report = StreamReport()
    before = 0
    for chunk in _chunks(_decoded(lines, report), chunk_lines):
        after = before + sum(line.size for line in chunk)
        translations = translate([line.text for line in chunk], _scaled(progress, before, after, len(chunk)))
        output = []
        for translation, line in zip(translations, chunk, strict=True):
            report.split += translation.split
            if translation.normalised:
                report.normalised += 1
                report.first_normalised = report.first_normalised or line.number
            output.append(render(translation._replace(text=line.mark + translation.text)).encode() + line.end)
        write(b"".join(output))
        before = after
    return report


def _scaled(progress: Callable[[int], None] | None, before: int, after: int, lines: int) -> Callable[[int], None]:
    """Return a progress by lines of a chunk that reports bytes of the input."""

    def report(done: int) -> None:
        if progress:
            progress(before + (after - before) * done // lines)

    return report


def _decoded(lines: Iterable[bytes], report: StreamReport) -> Iterator[_Line]:
    for number, raw in enumerate(lines, start=1):
        content = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        body = content.removesuffix(b"\n").removesuffix(b"\r")
        report.lines = number
        try:
            text = body.decode()
        except UnicodeDecodeError:
            text = body.decode(errors="replace")
            report.undecodable += 1
            report.first_undecodable = report.first_undecodable or number
        yield _Line(number, "\ufeff" if len(content) < len(raw) else "", text, content[len(body) :], len(raw))


def _chunks(lines: Iterable[_Line], most: int) -> Iterator[list[_Line]]:
    chunk: list[_Line] = []
    size = 0
    for line in lines:
        chunk.append(line)
        size += line.size
        if len(chunk) == most or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
