"""Localisation files of XLIFF and terminologies of TBX: what is text, what is left out and how it is counted."""

from pathlib import Path

import pytest
from toy_corpus import open_files, texts

from nmt.corpora import CorpusReader
from nmt.errors import UserError

ALONE = {"monolingual": True, "split": {"by": "text", "test": 0, "dev": 0}}


def xliff(body: str, source: str = "en", target: str = 'target-language="de-DE"') -> str:
    return (
        '<?xml version="1.0"?><xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">'
        f'<file source-language="{source}" {target}><header/><body>{body}</body></file></xliff>'
    )


def xliff2(body: str, target: str = 'trgLang="de"') -> str:
    return f'<xliff version="2.0" xmlns="urn:oasis:names:tc:xliff:document:2.0" srcLang="en" {target}>{body}</xliff>'


def opened(
    folder: Path, content: str, name: str = "a.xlf", files: str = "{component}.xlf", **read: object
) -> CorpusReader:
    return open_files(folder, {"kind": "xliff", "files": files, **read}, {name: content})


def rows_and_skipped(reader: CorpusReader) -> tuple[list[tuple[str, dict[str, str]]], dict[str, int]]:
    rows = texts(reader)
    return rows, dict(reader.skipped)


STATES = "".join(
    f'<trans-unit id="{n}" {unit}><source>s{n}</source><target {target}>t{n}</target></trans-unit>'
    for n, (unit, target) in enumerate(
        [
            ("", ""),
            ("", 'state="translated"'),
            ('approved="no"', 'state="signed-off"'),
            ('approved="yes"', 'state="final" state-qualifier="exact-match"'),
            ("", 'state="x-house"'),
            ("", 'state="new"'),
            ("", 'state="needs-translation"'),
            ("", 'state="needs-review-translation"'),
            ('approved="no"', ""),
            ('translate="no"', 'state="final"'),
        ]
    )
)


def test_states_of_1_2_decide_and_are_counted(tmp_path: Path) -> None:
    blank = "<trans-unit id='b'><source>s</source><target> </target></trans-unit>"
    content = xliff(f"{STATES}<trans-unit id='a'><source>s</source></trans-unit>{blank}")
    rows, skipped = rows_and_skipped(opened(tmp_path, content))
    assert rows == [(f"s{n}", {"de": f"t{n}"}) for n in range(5)]
    assert skipped == {
        "draft unit (state new), first at a.xlf unit 6": 1,
        "draft unit (state needs-translation), first at a.xlf unit 7": 1,
        "draft unit (state needs-review-translation), first at a.xlf unit 8": 1,
        "draft unit (approved no), first at a.xlf unit 9": 1,
        "unit that is not to be translated, first at a.xlf unit 10": 1,
        "untranslated unit, first at a.xlf unit 11": 2,
    }
    rows, skipped = rows_and_skipped(opened(tmp_path, content, drafts=True))
    assert rows == [(f"s{n}", {"de": f"t{n}"}) for n in range(9)]
    assert sum(skipped.values()) == 3


def test_states_and_segments_of_2_0(tmp_path: Path) -> None:
    segments = "".join(
        f"<segment {state}><source>s{n} </source><target>t{n}</target></segment><ignorable><source/></ignorable>"
        for n, state in enumerate(["", 'state="translated"', 'state="reviewed"', 'state="final"', 'state="initial"'])
    )
    match = "<mtc:matches><mtc:match ref='#1'><source>no</source><target>nein</target></mtc:match></mtc:matches>"
    content = xliff2(
        f'<file id="f"><unit id="1">{match}{segments}<segment><source>s5</source></segment></unit></file>'
        '<file id="g" translate="no"><group id="h"><unit id="2"><segment><source>a</source><target>b</target></segment>'
        '</unit><unit id="3" translate="yes"><segment><source>c</source><target xml:lang="de-AT">d</target></segment>'
        "</unit></group></file>"
    )
    rows, skipped = rows_and_skipped(opened(tmp_path, content))
    assert rows == [*((f"s{n} ", {"de": f"t{n}"}) for n in range(4)), ("c", {"de": "d"})]
    assert skipped == {
        "draft unit (state initial), first at a.xlf unit 1": 1,
        "untranslated unit, first at a.xlf unit 1": 1,
        "unit that is not to be translated, first at a.xlf unit 2": 1,
    }


@pytest.mark.parametrize(
    ("inner", "text"),
    [
        (
            'Die <g id="1">rote <g id="2">Tür</g></g><x id="3"/> ist<bx id="4"/> offen<ex id="5"/>',
            "Die rote Tür ist offen",
        ),
        ('Die <bpt id="1">&lt;b&gt;</bpt>rote<ept id="1">&lt;/b&gt;</ept> Tür', "Die rote Tür"),
        ('Die Tür<ph id="1">[1]<sub>Fußnote</sub></ph><it id="2" pos="open">&lt;i&gt;</it>', "Die Tür"),
        ('Die <mrk mtype="term">Tür</mrk>', "Die Tür"),
        ('Die Tür<x id="1" ctype="lb"/>ist offen', "Die Tür ist offen"),
        (
            'Die <pc id="1">rote <pc id="2">Tür</pc></pc> <sc id="3"/>ist<ec startRef="3"/><ph id="4"/>',
            "Die rote Tür ist",
        ),
        ('Die <mrk id="m" type="term">Tür</mrk><sm id="n"/><em startRef="n"/><cp hex="0007"/>', "Die Tür"),
        ('Die Tür<ph id="1" type="fmt" subType="xlf:lb"/>ist offen', "Die Tür ist offen"),
    ],
)
def test_text_is_read_without_inline_elements(inner: str, text: str, tmp_path: Path) -> None:
    old = xliff(f"<trans-unit id='1'><source>{inner}</source><target>{inner}</target></trans-unit>")
    new = xliff2(
        f"<file id='f'><unit id='1'><segment><source>{inner}</source><target>{inner}</target></segment></unit></file>"
    )
    for content in (old, new):
        assert texts(opened(tmp_path, content)) == [(text, {"de": text})]


def test_alternative_translations_are_none_of_the_unit(tmp_path: Path) -> None:
    alternative = '<alt-trans match-quality="80"><source>x</source><target xml:lang="fr">porte</target></alt-trans>'
    content = xliff(
        f"<trans-unit id='1'><source>door</source>{alternative}</trans-unit>"
        f"<trans-unit id='2'><source>wall</source><target>Wand</target>{alternative}</trans-unit>"
    )
    reader = opened(tmp_path, content)
    assert reader.languages == ["de", "en"]
    assert rows_and_skipped(reader) == ([("wall", {"de": "Wand"})], {"untranslated unit, first at a.xlf unit 1": 1})


def test_marked_segments_pair_by_their_ids_with_the_states_of_sdl(tmp_path: Path) -> None:
    def segments(word: str, ids: str) -> str:
        return " ".join(f'<g id="b"><mrk mtype="seg" mid="{mid}">{word} {mid}.</mrk></g>' for mid in ids)

    content = xliff(
        f'<trans-unit id="1"><source>all</source><seg-source>{segments("en", "12345")}</seg-source>'
        f'<target>{segments("de", "41239")}</target><sdl:seg-defs xmlns:sdl="x"><sdl:seg id="1" conf="Translated"/>'
        '<sdl:seg id="2" conf="Draft"/><sdl:seg id="3"/><sdl:seg id="4" conf="ApprovedSignOff"/></sdl:seg-defs>'
        "</trans-unit>"
    )
    rows, skipped = rows_and_skipped(opened(tmp_path, content))
    assert rows == [("en 1.", {"de": "de 1."}), ("en 4.", {"de": "de 4."})]
    assert skipped == {
        "draft unit (state Draft), first at a.xlf unit 1": 1,
        "draft unit (state Unspecified), first at a.xlf unit 1": 1,
        "untranslated unit, first at a.xlf unit 1": 1,
        "unit without text on a side, first at a.xlf unit 1": 1,
    }


def test_languages_are_those_of_the_text_then_of_the_file_then_of_the_path(tmp_path: Path) -> None:
    unit = "<trans-unit id='1'><source>door</source><target{}>x</target></trans-unit>"
    other = '</body></file><file source-language="en" target-language="pt"><body>' + unit.format(' xml:lang="pt-BR"')
    assert texts(opened(tmp_path, xliff(unit.format("") + other))) == [("door", {"de": "x"}), ("door", {"pt-BR": "x"})]
    untold = {"content": xliff(unit.format(""), target=""), "name": "messages.fr.xlf"}
    assert texts(opened(tmp_path / "b", **untold, files="messages.{language}.xlf")) == [("door", {"fr": "x"})]
    with pytest.raises(
        UserError, match=r"without a target language, first at messages.fr.xlf unit 1 .*; say it by the path"
    ):
        opened(tmp_path / "c", **untold, files="*.xlf")
    newer = {
        "content": xliff2("<file><unit><segment><source>a</source><target>b</target></segment></unit></file>", ""),
        "name": "en-fr/a.xlf",
    }
    assert texts(opened(tmp_path / "d", **newer, files="{source}-{target}/*.xlf")) == [("a", {"fr": "b"})]


def test_units_of_another_language_than_their_path_are_left_out(tmp_path: Path) -> None:
    unit = "<trans-unit id='1'><source>door</source><target>Tür</target></trans-unit>"
    reader = opened(tmp_path, xliff(unit), "messages.fr.xlf", "messages.{language}.xlf")
    assert rows_and_skipped(reader)[1] == {
        "unit in another language than its path says, first at messages.fr.xlf unit 1": 1
    }


def test_names_with_a_prefix_are_known(tmp_path: Path) -> None:
    content = (
        '<xlf:xliff version="1.2" xmlns:xlf="urn:oasis:names:tc:xliff:document:1.2"><xlf:file source-language="en" '
        'target-language="de"><xlf:body><xlf:trans-unit id="1"><xlf:source>the <xlf:g id="1">door</xlf:g></xlf:source>'
        "<xlf:target>die Tür</xlf:target></xlf:trans-unit></xlf:body></xlf:file></xlf:xliff>"
    )
    assert texts(opened(tmp_path, content)) == [("the door", {"de": "die Tür"})]


def test_single_texts_of_xliff_have_untranslated_sources_too(tmp_path: Path) -> None:
    content = xliff("<trans-unit id='1'><source>door</source></trans-unit>" + STATES)
    with open_files(tmp_path, {"kind": "xliff", "files": "*.xlf"}, {"a.xlf": content}, **ALONE) as reader:
        assert [row.text for row in reader.rows({"en"})] == ["door", *(f"s{n}" for n in range(10))]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no pair could be read: empty file, first at a.xlf"),
        ("<tmx/>", "a.xlf: its outermost element is <tmx>, not <xliff>"),
        (xliff("<trans-unit id='1'><source>a</source>")[:190], "a.xlf: the file ends within an element"),
        ('<!DOCTYPE x [<!ENTITY a "b">]><xliff/>', "its DOCTYPE declares entities"),
        (xliff("<trans-unit id='1'><source>a</source></trans-unit>", target=""), "no file has text of two languages"),
        (xliff("", target=""), "empty file, first at a.xlf"),
    ],
)
def test_bad_xliff_is_told_in_one_line(content: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error, opened(tmp_path, content) as reader:
        list(reader.rows({"de"}))
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_xliff_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    content = xliff(STATES)
    with opened(tmp_path, content[: content.index("s4")]) as reader:
        assert [row.text for row in reader.rows({"de"})] == ["s0", "s1", "s2", "s3"]
        assert reader.unreadable[0].startswith("a.xlf: read as far as unit 4 (")


TBX2 = """<?xml version='1.0'?>
<!DOCTYPE martif SYSTEM "TBXcoreStructV02.dtd"><martif type="TBX" xml:lang="en"><text><body>
<termEntry id="1"><descrip type="subjectField">house</descrip>
<langSet xml:lang="en"><tig><term>window sill</term></tig>
<tig><term>window ledge</term><termNote type="administrativeStatus">admittedTerm-admn-sts</termNote></tig>
<tig><term>sill-thing</term><termNote type="administrativeStatus">deprecatedTerm-admn-sts</termNote></tig></langSet>
<langSet xml:lang="de-DE"><ntig><termGrp><term>Fenster<hi>brett</hi></term></termGrp></ntig>
<ntig><termGrp><term>Sims</term><termNote type="normativeAuthorization">supersededTerm</termNote></termGrp></ntig>
</langSet>
<langSet><tig><term>?</term></tig></langSet></termEntry>
<termEntry id="2"><langSet xml:lang="en"><tig><term>door</term></tig></langSet></termEntry>
</body></text></martif>"""
TBX3 = """<tbx type="TBX-Core" style="dct" xml:lang="en" xmlns="urn:iso:std:iso:30042:ed-2" xmlns:min="x"><text><body>
<conceptEntry id="1"><min:subjectField>house</min:subjectField>
<langSec xml:lang="en"><termSec><term>window sill</term></termSec><termSec><term>window ledge</term>
<min:administrativeStatus>preferredTerm-admn-sts</min:administrativeStatus></termSec><termSec><term>sill-thing</term>
<min:administrativeStatus>deprecatedTerm-admn-sts</min:administrativeStatus></termSec></langSec>
<langSec xml:lang="de"><termSec><term>Fensterbrett</term></termSec><termSec><term>Sims</term><termNote
type="administrativeStatus">not recommended</termNote></termSec></langSec>
<langSec><termSec><term>?</term></termSec></langSec>
</conceptEntry><conceptEntry id="2"><langSec xml:lang="en"><termSec><term>door</term></termSec></langSec></conceptEntry>
</body></text></tbx>"""


@pytest.mark.parametrize("content", [TBX2, TBX3])
def test_terms_pair_and_those_not_to_be_used_are_counted(content: str, tmp_path: Path) -> None:
    reader = open_files(tmp_path, {"kind": "tbx", "files": "*.tbx"}, {"a.tbx": content})
    assert rows_and_skipped(reader) == (
        [("window sill", {"de": "Fensterbrett"}), ("window ledge", {"de": "Fensterbrett"})],
        {
            "term that is deprecated, superseded or forbidden, first at a.tbx unit 1": 2,
            "text without a language, first at a.tbx unit 1": 1,
            "unit without text on a side, first at a.tbx unit 2": 1,
        },
    )
    with open_files(tmp_path, {"kind": "tbx", "files": "*.tbx"}, {}, **ALONE) as alone:
        assert [row.text for row in alone.rows({"en"})] == ["window sill", "window ledge", "door"]


def test_a_file_that_is_no_terminology_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.tbx: its outermost element is <xliff>, not <martif> or <tbx>"):
        open_files(tmp_path, {"kind": "tbx", "files": "*.tbx"}, {"a.tbx": xliff(STATES)})
