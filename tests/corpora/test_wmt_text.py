"""Test sets of WMT: SGML that is none, XML of 2021 and later, and names of their files."""

import io

import pytest

from nmt.corpora.readers.file_names import divide_name
from nmt.corpora.readers.wmt_sets import WmtSet
from nmt.corpora.readers.wmt_text import WmtSide, is_wmt, read_wmt

SOURCES = b"""<srcset setid="toy2014" srclang="any">
<doc docid="a" genre="news" origlang="de">
<hl>
<seg id="1">Forschung & Lehre bei M&amp;M</seg>
</hl>
<p>
<seg id="2"> Drei < vier,
  und &#228; steht f&uuml;r sich </seg>
</doc>
<DOC docid='b'>
<seg id=1>Noch eins
<seg id=2>Und eins
</doc>
</srcset>
"""

REFERENCES = b"""<refset setid="toy2014" srclang="any" trglang="en">
<doc sysid="A" docid="a"><seg id="1">Research</seg><seg id="2">Three</seg></doc>
<doc sysid="B" docid="a"><seg id="1">Studies</seg><seg id="2">3</seg></doc>
</refset>
"""

XML = """<?xml version='1.0' encoding='utf-8'?>
<dataset id="toy2022"><collection id="general">
<doc origlang="en" id="a" domain="news">
<src lang="en"><p><seg id="1">Salt &amp; pepper</seg><seg id="2">A\u2028line</seg></p></src>
<ref lang="de" translator="A"><p><seg id="1">Salz und Pfeffer</seg><seg id="2">Eine Zeile</seg></p></ref>
<ref lang="de" translator="B"><p><seg id="1">Salz &lt;und&gt; Pfeffer</seg></p></ref>
<hyp lang="de" system="online"><p><seg id="1">Salz</seg><seg id="2">Zeile</seg></p></hyp>
</doc></collection></dataset>
"""


def read(content: bytes | str) -> list[WmtSide]:
    return read_wmt(io.BytesIO(content.encode() if isinstance(content, str) else content))


def test_sgm_is_read_by_its_tags_and_the_rest_is_text() -> None:
    first, second = read(SOURCES)
    assert (first.kind, first.language, first.author, first.document) == ("source", "", "", "a")
    assert first.segments == {"1": "Forschung & Lehre bei M&M", "2": "Drei < vier, und ä steht f&uuml;r sich"}
    assert (second.document, second.segments) == ("b", {"1": "Noch eins", "2": "Und eins"})


def test_references_are_told_apart_by_their_authors() -> None:
    assert [(side.kind, side.language, side.author, side.segments["1"]) for side in read(REFERENCES)] == [
        ("reference", "en", "A", "Research"),
        ("reference", "en", "B", "Studies"),
    ]


def test_xml_has_sources_references_and_translations() -> None:
    sides = read(XML)
    assert [(side.kind, side.language, side.author) for side in sides] == [
        ("source", "en", ""),
        ("reference", "de", "A"),
        ("reference", "de", "B"),
        ("translation", "de", "online"),
    ]
    assert {side.document for side in sides} == {"general/a"}
    assert sides[0].segments == {"1": "Salt & pepper", "2": "A\u2028line"}
    assert sides[2].segments == {"1": "Salz <und> Pfeffer"}


def test_a_set_is_gathered_from_several_files_and_leaves_out_translations() -> None:
    found = WmtSet()
    for place, language, content in (("src", "de", SOURCES), ("ref", "en", REFERENCES)):
        for side in read(content):
            found.add(side, language, place)
    assert set(found.sources) == {"de"}
    assert [texts["a", "1"] for texts in found.references["en"].values()] == ["Research", "Studies"]
    assert found.texts("de")["b", "2"] == "Und eins"
    assert found.texts("en") == {("a", "1"): "Research", ("a", "2"): "Three"}
    assert found.texts("fr") == {}
    other = WmtSet()
    for side in read(XML):
        other.add(side, side.language, "x")
    assert list(map(len, other.references["de"].values())) == [2, 1]
    with pytest.raises(ValueError, match="segment 1 of document 'general/a' is there twice"):
        other.add(read(XML)[0], "en", "x")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one line\nanother\n", "no test set of WMT"),
        (b"<tmx version='1.4'></tmx>", "no test set of WMT"),
        (b"<srcset setid='x' srclang='de'></srcset>", "it has no document"),
        (SOURCES[: SOURCES.index(b"vier")], "it ends within a segment"),
        (SOURCES.replace(b"Noch", b"\xff"), "line 11 is not UTF-8"),
        (SOURCES.replace(b"id=2>Und", b"id=1>Und"), "document 'b' has the segment 1 twice"),
        (XML.replace("</ref>", "", 1), "no well-formed XML: mismatched tag: line 8"),
        (XML[:300], "no well-formed XML"),
        (
            "<!DOCTYPE dataset [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]><dataset><doc id='1'><src lang='de'>"
            "<seg id='1'>&b;</seg></src></doc></dataset>",
            "declares the entity 'a', which is not read",
        ),
    ],
)
def test_what_is_no_test_set_is_told(content: bytes | str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read(content)
    assert "\n" not in str(raised.value)


def test_a_test_set_is_known_by_its_beginning() -> None:
    assert is_wmt(SOURCES)
    assert is_wmt(XML.encode())
    assert is_wmt(b'\xef\xbb\xbf<?xml version="1.0"?><mteval><srcset setid="x" srclang="German">')
    assert not is_wmt(b"<dataset-of-something>")
    assert not is_wmt(b"text")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("deu_Latn.devtest", ("devtest", "de", None, "")),
        ("dev.deu_Latn", ("dev", "de", None, "")),
        ("newstest2019-ref.deu.txt.gz", ("newstest2019.txt", "de", "reference", "")),
        ("newstest2019-src.eng.txt", ("newstest2019.txt", "en", "source", "")),
        ("newstest2019-ref.zho-CN.txt", ("newstest2019.txt", "zh-Hans", "reference", "")),
        ("newstest2014-deen-src.de.sgm", ("newstest2014-deen.sgm", "de", "source", "")),
        ("test.en.ref1", ("test", "en", "reference", "1")),
        ("test.refA.en", ("test", "en", "reference", "A")),
        ("test.de", ("test", "de", None, "")),
        ("test.src", ("test", "", "source", "")),
        ("IWSLT17.TED.tst2015.de-en.de.xml", ("IWSLT17.TED.tst2015.de-en.xml", "de", None, "")),
        ("pt-BR.txt", ("txt", "pt-BR", None, "")),
        ("README.md", ("README.md", "", None, "")),
    ],
)
def test_names_are_divided_into_group_language_and_role(name: str, parts: tuple[str, str, str | None, str]) -> None:
    found = divide_name(name)
    assert (found.group, found.language, found.role, found.number) == parts


def test_a_region_that_has_no_entry_of_its_own_is_dropped_and_told() -> None:
    assert (divide_name("x.eng-US.txt").language, divide_name("x.eng-US.txt").region) == ("en", True)
    assert (divide_name("x.pt-BR.txt").language, divide_name("x.pt-BR.txt").region) == ("pt-BR", False)
    assert divide_name("x.qqq_Latn.txt").language == ""
