"""Published test sets as corpora: .sgm and .xml of WMT, and folders with a file a language."""

from pathlib import Path
from typing import Any

import pytest
from toy_corpus import open_files, texts

from nmt.errors import UserError

READ = {"kind": "wmt", "files": "*.sgm"}


def sgm(kind: str, language: str, sysid: str, *segments: str) -> str:
    body = "".join(f'<seg id="{number}">{text}</seg>\n' for number, text in enumerate(segments, 1))
    by = f'sysid="{sysid}" ' if sysid else ""
    return f'<{kind}set setid="x" srclang="any" trglang="{language}">\n<doc {by}docid="a">{body}</doc>\n</{kind}set>\n'


def notes(source: Any) -> dict[str, int]:
    texts(source)
    return dict(source.skipped)


def test_source_and_references_belong_together_by_their_names(tmp_path: Path) -> None:
    files = {
        "newstest2014-deen-src.de.sgm": sgm("src", "any", "", "Eins & zwei", "Drei"),
        "newstest2014-deen-ref.en.sgm": sgm("ref", "en", "A", "One &amp; two", "Three")
        + sgm("ref", "en", "B", "1 & 2", ""),
        "newstest2014-fren-src.fr.sgm": sgm("src", "any", "", "Un"),
        "newstest2014-fren-ref.en.sgm": sgm("ref", "en", "A", "One", "Nobody"),
        "newstest2014-deen-tst.en.sgm": sgm("tst", "en", "system", "x", "y"),
    }  # fmt: skip
    source = open_files(tmp_path, READ, files)
    assert source.languages == ["de", "en", "fr"]
    assert (source.has("de", "en"), source.has("fr", "de")) == (True, False)
    with source:
        rows = list(source.rows(source.languages))
    assert [(row.text, dict(row.translations)) for row in rows] == [
        ("One & two", {"de": "Eins & zwei"}),
        ("Three", {"de": "Drei"}),
        ("One", {"fr": "Un"}),
    ]
    assert dict(source.skipped) == {
        "document that a system translated, first at newstest2014-deen-tst.en.sgm document a": 1,
        "further reference of a segment, first at newstest2014-deen-ref.en.sgm document a segment 1": 1,
        "segment without text on a side, first at newstest2014-fren-ref.en.sgm document a segment 2": 1,
    }


def test_a_set_in_several_languages_has_every_direction(tmp_path: Path) -> None:
    files = {
        f"dev/newstest2013-{kind}.{code}.sgm": sgm(kind, code, sysid, f"{code} one", f"{code} two")
        for kind, sysid in (("src", ""), ("ref", "ref"))
        for code in ("de", "en", "fr")
    }  # fmt: skip
    read = {"kind": "wmt", "files": "dev/*.sgm", "key_language": "fr"}
    found = texts(open_files(tmp_path, read, files))
    assert found == [(f"fr {n}", {"de": f"de {n}", "en": f"en {n}"}) for n in ("one", "two")]


def test_xml_and_the_splits_by_the_name_of_the_set(tmp_path: Path) -> None:
    def doc(name: str, text: str) -> str:
        return (
            f'<doc id="{name}"><src lang="en"><p><seg id="1">{text}</seg></p></src>'
            f'<ref lang="de" translator="A"><p><seg id="1">{text.upper()}</seg></p></ref></doc>'
        )

    files = {
        "newstest2021.en-de.xml": f"<dataset id='x'>{doc('a', 'one')}{doc('b', 'two')}</dataset>",
        "wmttest2022.en-de.xml": f"<dataset id='y'><collection id='general'>{doc('a', 'six')}</collection></dataset>",
    }
    split = {"by": "name", "test": ["wmttest*"], "dev": ["newstest*"]}
    with open_files(tmp_path, {"kind": "wmt", "files": "*.xml"}, files, split=split) as source:
        rows = [(row.component, row.text, dict(row.translations)) for row in source.rows({"de", "en"})]
    assert rows == [
        ("newstest2021.en-de", "one", {"de": "ONE"}),
        ("newstest2021.en-de", "two", {"de": "TWO"}),
        ("wmttest2022.en-de", "six", {"de": "SIX"}),
    ]


def test_languages_by_the_path_the_file_or_the_declaration(tmp_path: Path) -> None:
    files = {"ger/x-src.sgm": sgm("src", "any", "", "Eins"), "eng/x-ref.sgm": sgm("ref", "any", "A", "One")}
    read = {"kind": "wmt", "files": "{language}/x-*.sgm"}
    found = open_files(
        tmp_path / "path", read, {name.replace("eng/x-ref", "eng/x-src"): text for name, text in files.items()}
    )
    assert texts(found) == [("One", {"de": "Eins"})]
    iwslt = {
        "tst.de-en.de.xml": '<mteval><srcset setid="x" srclang="German"><doc docid="1">'
        '<seg id="1"> Eins </seg></doc></srcset></mteval>',
        "tst.de-en.en.xml": '<mteval><refset setid="x" srclang="German" trglang="English"><doc docid="1" sysid="ref">'
        '<seg id="1"> One </seg></doc></refset></mteval>',
    }  # fmt: skip
    assert texts(open_files(tmp_path / "iwslt", {"kind": "wmt", "files": "*.xml"}, iwslt)) == [("One", {"de": "Eins"})]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a-src.de.sgm": "one\ntwo\n"}, r"a-src\.de\.sgm: it is no test set of WMT"),
        ({"a-src.de.sgm": ""}, "empty file, first at a-src.de.sgm"),
        ({"a-src.de.sgm": sgm("src", "any", "", "x")}, "no file has text of two languages that belongs together"),
        ({"a.txt": "x"}, r"there is no file like \*\.sgm"),
        ({"a-src.qqq.sgm": sgm("src", "qqq", "", "x")}, "no file has text of two languages"),
        (
            {"a-src.de.sgm": "<!DOCTYPE d [<!ENTITY a 'b'>]><dataset><doc id='1'></doc></dataset>"},
            "declares the entity 'a'",
        ),
    ],
)  # fmt: skip
def test_what_is_no_test_set_ends_in_one_line(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"^corpus toy: .*{message}") as raised:
        texts(open_files(tmp_path, READ, files))
    assert "\n" not in str(raised.value)


def test_a_folder_with_a_file_a_language_is_parallel_text(tmp_path: Path) -> None:
    files = {
        "devtest/deu_Latn.devtest": "Eins\n",
        "devtest/eng_Latn.devtest": "One\n",
        "devtest/fra_Latn.devtest": "Un\n",
    }
    read = {"kind": "parallel_text", "files": "devtest/{language}.devtest"}
    assert texts(open_files(tmp_path, read, files)) == [("One", {"de": "Eins", "fr": "Un"})]
