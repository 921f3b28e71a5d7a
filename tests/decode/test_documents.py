"""Documents of every kind: units and back, pipes, compressed files, and output that is interrupted at any byte."""

import gzip
import io
import json
import os
import re
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt.decode.chunks import ChunkSizes
from nmt.decode.documents.breaking import break_lines
from nmt.decode.documents.json_lines import JsonLines
from nmt.decode.documents.kinds import document_kind
from nmt.decode.documents.packing import packing
from nmt.decode.documents.partial import PartialOutput
from nmt.decode.documents.pipes import PipeLines
from nmt.decode.documents.plain import PlainLines
from nmt.decode.documents.subtitles import Subtitles
from nmt.decode.documents.table import Table
from nmt.decode.documents.units import LineNumbers, decoded_lines
from nmt.decode.stream import StreamReport, translate_units
from nmt.decode.translator import Translation
from nmt.errors import UserError


def in_capitals(texts):
    return [Translation(text.upper(), -1.5, 1) for text in texts]


def translated(document, data, on_error="replace"):
    """A document of bytes or text, with all that is translated in capitals."""
    out, report = io.BytesIO(), StreamReport()
    raw = data.encode() if isinstance(data, str) else data
    units = document.units(decoded_lines(io.BytesIO(raw), report.undecodable, on_error))
    translate_units(units, lambda output, _: out.write(output), in_capitals, report)
    assert (report.read, report.lines) == (len(raw), raw.count(b"\n") + (raw[-1:] not in (b"", b"\n")))
    return out.getvalue().decode()


def plain(translation):
    return translation.text


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (None, "lines"),
        ("a.txt", "lines"),
        ("a.JSONL.gz", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.tsv.zst", "tsv"),
        ("a.srt", "srt"),
        ("A.VTT", "vtt"),
        ("srt", "lines"),
    ],
)
def test_the_name_tells_the_kind(name, kind):
    assert document_kind(name) == kind
    assert document_kind(name, "tsv") == "tsv"


def test_kinds_that_there_are_not():
    with pytest.raises(UserError, match=r"--format json is none of lines, jsonl, .*did you mean jsonl"):
        document_kind(None, "json")


def test_bytes_that_are_not_utf8_are_refused_with_their_line():
    with pytest.raises(UserError, match=r"line 3 is not UTF-8 \(byte 2 is 0xFF\)"):
        translated(PlainLines(plain), b"a\n\nb\xff\n", "refuse")
    with pytest.raises(UserError, match="UTF-16"):
        translated(PlainLines(plain), "a\nb\n".encode("utf-16"))


def test_numbers_of_lines():
    numbers, shown = LineNumbers(), []
    for number in (2, 5, 7, 8, 9, 11, 12):
        numbers.add(number)
        shown.append(str(numbers))
    assert shown[0::2] == ["line 2", "lines 2, 5 and 7", "lines 2, 5, 7, 8 and 9", "lines 2, 5, 7, 8, 9 and 2 more"]


# JSON lines.


def json_lines(field="text", result=None, scored=False):
    return JsonLines(field, result, lambda t: {"score": t.score} if scored else {})


@pytest.mark.parametrize(
    ("line", "options", "expected"),
    [
        ('{"id": 1.50, "text": "é \\u00e9"}', {}, '{"id": 1.50, "text": "é \\u00e9", "translation": "É É"}'),
        ('  {"text":"a","x":{"y":[1e400]}}  \r', {}, '  {"text":"a","x":{"y":[1e400]}, "translation": "A"}\r'),
        ('{"text": "a"}', {"scored": True}, '{"text": "a", "translation": "A", "score": -1.5}'),
        ('{"text": "a"}', {"result": "text"}, '{"text": "A"}'),
        ('{"t": {"de": "a", "n": 1}}', {"field": "t.de", "result": "t.en"}, '{"t": {"de": "a", "n": 1, "en": "A"}}'),
        ('{"a.b": "x"}', {"field": "a.b", "result": "a.b"}, '{"a.b": "X"}'),
        ('{"text": ["a", "b\\nc"]}', {}, '{"text": ["a", "b\\nc"], "translation": ["A", "B\\nC"]}'),
        ('{"text": null}', {"scored": True}, '{"text": null, "translation": null}'),
        ('{"text": []}', {"scored": True}, '{"text": [], "translation": []}'),
        ('{"text": "\\ud83d"}', {}, '{"text": "\\ud83d", "translation": "\\ud83d"}'),
        ("", {}, ""),
    ],
)
def test_json_lines_keep_what_they_have(line, options, expected):
    assert translated(json_lines(**options), f"{line}\n{line}") == f"{expected}\n{expected}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("text", "line 2 is not JSON"),
        ("[1]", "line 2 is JSON, but not an object"),
        ('{"txt": 1, "b": 2}', r"line 2 has no field 'text'; did you mean txt\?; it has 'txt', 'b'"),
        ('{"text": 1}', "line 2: the field 'text' is not a text"),
        ('{"text": "a", "translation": "b"}', "line 2 has a field 'translation' already"),
    ],
)
def test_json_lines_that_are_none(line, message):
    with pytest.raises(UserError, match=message):
        translated(json_lines(), '{"text": "a"}\n' + line)


# Tables.


def table(columns, header=False, replace=False):
    return Table(tuple(columns.split(",")), header, replace, plain)


def test_columns_of_tables():
    data = "a\t b \tc\r\n\nd\te\t"
    assert translated(table("2"), data) == "a\t b \tc\t B \r\n\nd\te\t\tE"
    assert translated(table("2", replace=True), data) == "a\t B \tc\r\n\nd\tE\t"
    assert translated(table("1,3", header=True), data) == "a\t b \tc\ttranslation 1\ttranslation 3\r\n\nd\te\t\tD\t"
    assert translated(table("c", replace=True), "\ufeffa\tc\n1\tx y") == "\ufeffa\tc\n1\tX Y"


def test_columns_that_there_are_not():
    for columns, message in (
        ("3", "line 2 has 2 columns, no column 3"),
        ("0", "counted from 1"),
        ("txt", "no column has the title 'txt'; did you mean text"),
    ):
        with pytest.raises(UserError, match=message):
            translated(table(columns), "text\tb\tc\nd\te\n")


# Subtitles.

SRT = """1
00:00:01,000 --> 00:00:02,500 X1:10
<i>Hello there,
my friend.</i>

2
00:00:03,000 --> 00:00:04,000
- Hi!
- <b>Ho</b> ho!

3
00:00:05,000 --> 00:00:06,000
{\\an8}♪ ♪
4
00:00:07,000 --> 00:00:08,000
The <b>bold</b> one
"""

VTT = """\ufeffWEBVTT - A title --> no cue

STYLE
::cue { color: red }

NOTE a comment

intro
00:01.000 --> 00:02.500 line:10% align:start
<v Anna>Fish &amp; chips

01:00:03.000 --> 01:00:04.000
<00:03.500>3 &lt; 4
"""


def test_subtitles_keep_all_but_the_text_of_cues():
    expected = SRT.replace("Hello there,\nmy friend.", "HELLO THERE,\nMY FRIEND.").replace("- Hi!", "- HI!")
    expected = expected.replace("<b>Ho</b> ho", "HO HO").replace("The <b>bold</b> one", "THE BOLD ONE")
    assert translated(Subtitles(escaped=False), SRT) == expected
    assert translated(Subtitles(escaped=False), SRT.replace("\n", "\r\n")) == expected.replace("\n", "\r\n")
    shouted = VTT.replace("Fish &amp; chips", "FISH &amp; CHIPS")
    assert translated(Subtitles(escaped=True), VTT) == shouted


@given(
    st.lists(st.sampled_from(["1", "", "a b", "00:00:01,000 --> 00:00:02,000", "- c", "<i>d</i>", " "]), max_size=12)
)
def test_no_line_of_subtitles_is_lost(lines):
    data = "\n".join(lines)
    assert (
        re.sub("</?i>", "", translated(Subtitles(escaped=False), data)).lower().split()
        == re.sub("</?i>", "", data).split()
    )


@pytest.mark.parametrize(
    ("text", "before", "lines"),
    [
        ("Ich bin hier.", ["I am", "here."], ["Ich bin", "hier."]),
        ("Guten Tag.", ["Hello,", "my dearest friend."], ["Guten Tag."]),
        ("Wort", ["a", "b"], ["Wort"]),
        ("", ["a", "b"], [""]),
        (
            "Der Zug nach Berlin fährt heute nicht.",
            ["The train to Berlin", "is off."],
            ["Der Zug nach Berlin", "fährt heute nicht."],
        ),
        ("w" * 30 + " " + "v" * 30, ["short"], ["w" * 30, "v" * 30]),
        (
            "這是一個很長的句子，我擔心它放不進一行裡面，真的。",
            ["short"],
            ["這是一個很長的句子，我擔心", "它放不進一行裡面，真的。"],
        ),
    ],
)
def test_lines_of_a_cue_are_about_as_wide(text, before, lines):
    assert break_lines(text, before) == lines


def test_a_very_long_cue_is_broken_quickly():
    lines = break_lines("word " * 2000, ["a", "b"])
    assert max(map(len, lines)) <= 42
    assert " ".join(lines).split() == ["word"] * 2000


# Pipes.


def test_a_line_in_a_pipe_is_answered_before_the_next():
    into, out = os.pipe()
    lines = PipeLines(into)
    told = []

    def serve():
        report = StreamReport()
        units = PlainLines(plain).units(decoded_lines(lines, report.undecodable))
        translate_units(
            units, lambda output, _: (told.append(output), done.set()), in_capitals, report, ready=lines.ready
        )

    thread = threading.Thread(target=serve)
    thread.start()
    for given_, answer in ((b"a\n", b"A\n"), (b"b\nc\n", b"B\nC\n")):
        done = threading.Event()
        os.write(out, given_)
        assert done.wait(20)
        assert told[-1] == answer
    os.write(out, b"half")
    assert not lines._lines
    os.write(out, b" a line\n\nthe end")
    os.close(out)
    thread.join(20)
    assert not thread.is_alive()
    assert b"".join(told[2:]) == b"HALF A LINE\n\nTHE END"
    os.close(into)


# Output that is kept.

TEXT = "".join(f"line {number}\n" for number in range(40)).encode()


class Killed(BaseException):
    pass


def write_partly(path, data=TEXT, identity="same", killed_after=None, restart=False):
    """Translate as the command does; die after so many chunks, or write the file."""
    with PartialOutput(path, {"text": identity, "model": "m"}, restart) as partial:
        report = partial.report
        done = report.lines
        units = PlainLines(plain).units(decoded_lines(partial.watch(io.BytesIO(data)), report.undecodable))
        read = 0
        while read < report.read:
            read += next(units).size
        partial.check_read()
        chunks = 0

        def write(output, report):
            nonlocal chunks
            if chunks == killed_after:
                os.write(partial._file, output[: len(output) // 2])  # a torn write
                raise Killed
            chunks += 1
            partial.write(output, report)

        translate_units(units, write, in_capitals, report, sizes=ChunkSizes(largest=8))
        partial.finish()
    return done


def read(path):
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


@pytest.mark.parametrize("name", ["out.txt", "out.gz"])
@pytest.mark.parametrize("chunks", range(5))
def test_an_interrupted_file_is_continued(name, chunks, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"before")
    with pytest.raises(Killed):
        write_partly(path, killed_after=chunks)
    assert path.read_bytes() == b"before"
    assert write_partly(path) == 8 * chunks
    assert read(path) == TEXT.upper()
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_what_was_begun_with_other_things_is_not_continued(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(Killed):
        write_partly(path, killed_after=2)
    with pytest.raises(UserError, match=r"out.partial has 16 lines for another text: .*--restart"):
        write_partly(path, identity="other")
    with pytest.raises(UserError, match="for another text"):
        write_partly(path, data=TEXT.replace(b"line 3\n", b"LINE 3\n"))
    assert write_partly(path, identity="other", restart=True) == 0
    assert path.read_bytes() == TEXT.upper()


def test_two_processes_do_not_write_one_file(tmp_path):
    with PartialOutput(tmp_path / "out", {}), pytest.raises(UserError, match="another process is writing"):
        PartialOutput(tmp_path / "out", {})
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=10)
@given(st.lists(st.binary(max_size=20), max_size=3))
def test_compressed_chunks_are_one_file(chunks):
    for name, module in (("a.gz", "gzip"), ("a.xz", "lzma"), ("a.bz2", "bz2")):
        packed = b"".join(map(packing(name), [b"", *chunks]))
        assert __import__(module).decompress(packed) == b"".join(chunks)
    assert packing("a.txt")(b"x") == b"x"
    assert json.loads(json.dumps(["x"])) == ["x"]
