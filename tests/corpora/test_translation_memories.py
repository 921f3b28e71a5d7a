"""Translation memories: variants, regions, inline markup, encodings, damage, and memory that does not grow."""

import gzip
import io
import lzma
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import open_files, texts

from nmt.corpora import CorpusReader
from nmt.corpora.readers.xml_stream import scan_languages, stream_elements, utf8_chunks
from nmt.errors import UserError

READ = {"kind": "tmx", "files": "{component}.tmx"}
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<tmx version="1.4"><header srclang="{source}"/><body>'
TAIL = "</body></tmx>"


def unit(*variants: tuple[str, str], attribute: str = "xml:lang") -> str:
    inner = "".join(f'<tuv {attribute}="{code}"><seg>{text}</seg></tuv>' for code, text in variants)
    return f"<tu>{inner}</tu>\n"


def memory(*units: str, source: str = "en") -> str:
    return HEAD.format(source=source) + "".join(units) + TAIL


def declared(entities: str, text: str) -> str:
    return memory(unit(("en", text), ("de", "b"))).replace("<tmx", f"<!DOCTYPE tmx [{entities}]><tmx", 1)


def opened(folder: Path, content: str | bytes, name: str = "a.tmx", **changes: Any) -> CorpusReader:
    return open_files(folder, {**READ, "files": f"{{component}}{name[1:]}"}, {name: content}, **changes)


def read(folder: Path, content: str | bytes, *wanted: str, **changes: Any) -> list[tuple[str, dict[str, str]]]:
    return texts(opened(folder, content, **changes), *wanted)


def test_every_variant_pairs_once_with_every_text_of_the_key_language(tmp_path: Path) -> None:
    content = memory(
        unit(("de-DE", "Haus"), ("de-AT", "Häusl"), ("en-GB", "house"), ("en-US", "home"), ("fr", "maison"))
    )
    rows = read(tmp_path, content)
    pairs = [(text, language, other) for text, others in rows for language, other in others.items()]
    assert sorted(pairs) == [
        ("home", "de", "Haus"),
        ("home", "de", "Häusl"),
        ("home", "fr", "maison"),
        ("house", "de", "Haus"),
        ("house", "de", "Häusl"),
        ("house", "fr", "maison"),
    ]


def test_regions_are_their_language_unless_the_declaration_says_otherwise(tmp_path: Path) -> None:
    content = memory(unit(("EN-US", "color"), ("en_GB", "colour"), ("pt-BR", "cor"), ("pt-PT", "tom")))
    assert read(tmp_path, content, "pt-BR") == [("color", {"pt-BR": "cor"}), ("colour", {"pt-BR": "cor"})]
    assert read(tmp_path, content, "pt") == [("color", {"pt": "tom"}), ("colour", {"pt": "tom"})]
    # The declaration's code holds in any capitals, with - or _.
    assert read(tmp_path, content, "pt", languages={"en-us": None}) == [("colour", {"pt": "tom"})]


@pytest.mark.parametrize(
    ("segment", "text"),
    [
        ('Die <bpt i="1">&lt;b&gt;</bpt>rote<ept i="1">&lt;/b&gt;</ept> Tür', "Die rote Tür"),
        ("<hi>Die <hi>rote</hi></hi> Tür", "Die rote Tür"),
        ('Die Tür<ph x="1">{\\fn <sub>Eine Fußnote</sub>}</ph> ist rot', "Die Tür ist rot"),
        ('<it pos="begin">&lt;i&gt;</it>Die Tür<ut>&lt;/i&gt;</ut>', "Die Tür"),
        ('Die Tür<ph type="lb"/>ist rot', "Die Tür ist rot"),
        ("a &lt; b &amp; c &#228;<![CDATA[ <d>]]>", "a < b & c ä <d>"),
        ("x&nbsp;y &trade; &unknown; z", "x\xa0y ™ &unknown; z"),
    ],
)
def test_text_is_read_without_markup(segment: str, text: str, tmp_path: Path) -> None:
    content = memory(unit(("en", "x"), ("de", segment))).replace("<tmx", '<!DOCTYPE tmx SYSTEM "tmx14.dtd"><tmx', 1)
    assert read(tmp_path, content) == [("x", {"de": text})]


def test_the_older_attribute_lang_and_namespaces_are_known(tmp_path: Path) -> None:
    old = memory(unit(("EN", "door"), ("DE", "Tür"), attribute="lang")).replace("1.4", "1.1")
    prefixed = memory(unit(("en", "door"), ("de", "Tür"))).replace("</", "</t:").replace("<t", "<t:t")
    prefixed = prefixed.replace("<t:tmx", '<t:tmx xmlns:t="http://www.lisa.org/tmx14"', 1)
    prefixed = prefixed.replace("<header", "<t:header").replace("<body", "<t:body").replace("<seg", "<t:seg")
    prefixed = prefixed.replace("</t:t:", "</t:")
    assert read(tmp_path, old) == read(tmp_path, prefixed) == [("door", {"de": "Tür"})]


@pytest.mark.parametrize(
    ("encoding", "declared"),
    [
        ("utf-8-sig", "UTF-8"),
        ("utf-16", "UTF-16"),
        ("utf-16", "utf-8"),
        ("utf-16-be", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-8", "utf-16"),
        ("windows-1252", "windows-1252"),
        ("shift_jis", "Shift_JIS"),
    ],
)
def test_encodings_are_told_by_the_first_bytes_and_then_by_the_declaration(
    encoding: str, declared: str, tmp_path: Path
) -> None:
    text = "ドアは赤い" if "jis" in encoding else "Tür" if "1252" in encoding else "Tür 𝄞"
    content = ("\r\n" + memory(unit(("en", "door"), ("de", text)))).replace("UTF-8", declared)
    assert read(tmp_path, content.encode(encoding)) == [("door", {"de": text})]


@pytest.mark.parametrize("ending", [".gz", ".xz"])
def test_compressed_files_are_read_as_far_as_they_go(ending: str, tmp_path: Path) -> None:
    units = [unit(("en", f"door {n}"), ("de", f"Tür {n * n % 7919}")) for n in range(5_000)]
    packed = (gzip.compress if ending == ".gz" else lzma.compress)(memory(*units).encode())
    with opened(tmp_path, packed, f"a.tmx{ending}") as reader:
        assert sum(1 for _ in reader.rows({"de"})) == 5_000
        assert not reader.unreadable
    with opened(tmp_path, packed[: len(packed) // 2], f"a.tmx{ending}") as reader:
        found = sum(1 for _ in reader.rows({"de"}))
        assert 0 < found < 5_000
        assert reader.unreadable[0].startswith(f"a.tmx{ending}: read as far as unit {found:,} (")


@pytest.mark.parametrize("end", ["<tu><tuv xml:lang='en'><seg>cut", "<tu></tuv>", "\x07" + TAIL, "&undeclared;</tu>"])
def test_damage_is_told_with_the_last_whole_unit(end: str, tmp_path: Path) -> None:
    with opened(tmp_path, HEAD + unit(("en", "a"), ("de", "b")) + unit(("en", "c"), ("de", "d")) + end) as reader:
        assert [row.text for row in reader.rows({"de"})] == ["a", "c"]
        assert reader.unreadable[0].startswith("a.tmx: read as far as unit 2 (")


def test_units_and_texts_that_cannot_be_used_are_counted(tmp_path: Path) -> None:
    content = memory(
        unit(("en", "one"), ("de", "eins")),
        unit(("en", "two")),
        unit(("en", "three"), ("de", " ")),
        unit(("en", "four"), ("de", "vier"), ("", "quatre")),
        unit(("en", "five"), ("xx-bogus", "fünf")),
        "<tu><tuv xml:lang='de'/></tu>",
    )
    with opened(tmp_path, content) as reader:
        assert [row.text for row in reader.rows({"de"})] == ["one", "four"]
        assert reader.unregistered == ["xx-bogus"]
        assert reader.skipped == {
            "unit without text on a side, first at a.tmx unit 2": 4,
            "text without a language, first at a.tmx unit 4": 1,
        }


def test_the_source_language_stands_in_for_the_key_language(tmp_path: Path) -> None:
    content = memory(
        unit(("fr", "porte"), ("de", "Tür")),
        unit(("fr", "mur"), ("de", "Wand")).replace("<tu>", '<tu srclang="fr">'),
        unit(("fr", "toit"), ("de", "Dach")).replace("<tu>", '<tu srclang="*all*">'),
        source="de-DE",
    )
    assert read(tmp_path, content) == [("Tür", {"fr": "porte"}), ("mur", {"de": "Wand"}), ("toit", {"de": "Dach"})]
    with opened(tmp_path, content) as reader:
        assert reader.has("fr", "de")
        assert not reader.has("fr", "en")


def test_single_texts_are_each_read_once(tmp_path: Path) -> None:
    content = memory(
        unit(("de-DE", "Haus"), ("de-AT", "Häusl"), ("en-GB", "house"), ("en-US", "home")), unit(("de", "Hof"))
    )
    alone = {"monolingual": True, "split": {"by": "text", "test": 0, "dev": 0}}
    with opened(tmp_path, content, **alone) as reader:
        assert [row.text for row in reader.rows({"de"})] == ["Haus", "Häusl", "Hof"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty file, first at a.tmx"),
        ("id,en,de\n1,a,b\n", "a.tmx: no valid XML: "),
        ("<html><p>x</p></html>", "a.tmx: its outermost element is <html>, not <tmx>"),
        (memory(unit(("en", "alone"))), "no file has text of two languages that belongs together"),
        (declared('<!ENTITY a "aaa"><!ENTITY b "&a;&a;">', "&b;"), "its DOCTYPE declares entities, which are not"),
        (declared('<!ENTITY x SYSTEM "file:///etc/passwd">', "&x;"), "its DOCTYPE declares entities, which are not"),
        (memory(unit(("en", "a"), ("de", "b"))).replace("UTF-8", "klingon"), "its encoding, klingon, is unknown"),
    ],
)
def test_bad_input_is_told_in_one_line(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error, opened(tmp_path, content) as reader:
        list(reader.rows({"de"}))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


class Endless(io.RawIOBase):
    """A memory of so many units that it is never whole anywhere."""

    def __init__(self, units: int) -> None:
        self._parts = self._generate(units)
        self._rest = b""

    def _generate(self, units: int) -> Iterator[bytes]:
        yield HEAD.encode()
        for number in range(units):
            yield unit(("en", f"The door of house {number} is open"), ("de", f"Tür {number}")).encode()
        yield TAIL.encode()

    def read(self, size: int = -1) -> bytes:
        while len(self._rest) < size and (part := next(self._parts, b"")):
            self._rest += part
        taken, self._rest = self._rest[:size], self._rest[size:]
        return taken


def test_memory_does_not_grow_with_the_units() -> None:
    peaks = []
    for units in (3_000, 20_000):
        tracemalloc.start()
        assert sum(1 for _ in stream_elements(Endless(units), ("tmx",), ("tu",))) == units  # type: ignore[arg-type]
        assert sorted(scan_languages(Endless(units), ("tuv",))) == ["de", "en"]  # type: ignore[arg-type]
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 8 << 20


def test_languages_are_found_across_the_pieces_of_a_file() -> None:
    content = memory(*(unit((f"en-{n:05}", "x" * (n % 97)), (f"de-{n:05}", "<hi>y</hi>")) for n in range(3_000)))
    spread = content.replace("<tuv ", '<tuv\n  creationdate="20200101T000000Z"\n\t')
    expected = {f"{code}-{n:05}" for n in range(3_000) for code in ("en", "de")}
    assert set(scan_languages(io.BytesIO(content.encode()), ("tuv",))) == expected
    assert set(scan_languages(io.BytesIO(spread.encode("utf-16")), ("tuv",))) == expected
    assert (
        set(scan_languages(io.BytesIO(b'<tuv creator="x"><seg>xml:lang="fr"</seg><prop lang="it"/>'), ("tuv",)))
        == set()
    )


def test_pieces_of_a_file_are_utf8_wherever_they_are_cut() -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?>' + "ä€𝄞" * 40_000
    assert b"".join(utf8_chunks(io.BytesIO(text.encode("utf-16")))).decode() == text
