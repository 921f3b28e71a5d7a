"""OPUS's XML: sentences by their ids, in zip archives or folders, aligned by files of links."""

import gzip
from pathlib import Path
from typing import Any

import pytest
from test_archives import make_zip
from toy_corpus import open_files

from nmt.corpora.declare.spec import load_spec
from nmt.corpora.obtain.own import own_files
from nmt.errors import UserError

HEAD = '<?xml version="1.0" encoding="utf-8"?>\n'
ALIGNMENT = f"""{HEAD}<!DOCTYPE cesAlign PUBLIC "-//CES//DTD XML cesAlign//EN" "">
<cesAlign version="1.0">
 <linkGrp targType="s" fromDoc="de/ep-00.xml.gz" toDoc="en/ep-00.xml.gz">
  <link id="SL0" xtargets="1;1" certainty="0.9" />
  <link id="SL1" xtargets="2 3;2" certainty="0.2" />
  <link id="SL2" xtargets="4;" />
  <link id="SL3" xtargets=";3" />
  <link id="SL4" xtargets="5;99" />
  <link id="SL5" xtargets="5" />
 </linkGrp>
 <linkGrp targType="s" fromDoc="de/gone.xml.gz" toDoc="en/ep-00.xml.gz">
  <link xtargets="1;1" />
  <link xtargets="2;2" />
 </linkGrp>
 <linkGrp targType="s" fromDoc="de/ep-01.xml.gz" toDoc="en/ep-01.xml.gz">
  <link xtargets="a1;1" certainty="1.5" />
 </linkGrp>
</cesAlign>
"""
RAW = {
    "de/ep-00": '<s id="1">Wiederaufnahme der\n   Sitzungsperiode</s><P id="1"><s id="2">Eins.</s>'
    '<s id="3">Zwei &amp; drei. <time id="T1S" value="00:01"/></s></P><s id="4">Vier</s><s id="5">Fünf</s>',
    "en/ep-00": '<s id="1">Resumption of the session</s><s id="2">One, two and three.</s><s id="3">Four</s>',
    "de/ep-01": '<s id="a1">Frau Präsidentin!</s>',
    "en/ep-01": '<s id="1">Madam President!</s>',
}
PAIRS = [
    ("ep-00", "Resumption of the session", "Wiederaufnahme der Sitzungsperiode"),
    ("ep-00", "One, two and three.", "Eins. Zwei & drei."),
    ("ep-01", "Madam President!", "Frau Präsidentin!"),
]
READ = {"kind": "opus_xml", "files": "{source}-{target}.xml.gz", "sentences": "{language}.zip/Europarl/raw/{path}"}
BY_DOCUMENT = {"by": "component", "test": 0, "dev": 0}


def document(body: str, root: str = "text") -> bytes:
    return f"{HEAD}<{root}><body>{body}</body></{root}>".encode()


def write_zips(folder: Path) -> None:
    for code in ("de", "en"):
        names = (name for name in RAW if name.startswith(code))
        make_zip(folder / f"{code}.zip", {f"Europarl/raw/{name}.xml": document(RAW[name]) for name in names})


def read_pairs(reader: Any) -> list[tuple[str, str, str]]:
    return [(row.component, row.text, row.translations["de"]) for row in reader.rows({"de"})]


def test_downloads_of_opus_are_read_as_they_come(tmp_path: Path) -> None:
    write_zips(tmp_path)
    with open_files(tmp_path, READ, {"de-en.xml.gz": gzip.compress(ALIGNMENT.encode())}, split=BY_DOCUMENT) as reader:
        assert reader.languages == ["de", "en"]
        assert read_pairs(reader) == PAIRS
        assert dict(reader.skipped) == {
            "link with an empty side, first at de-en.xml.gz link 3": 2,
            "link to a sentence that its document does not have, first at de-en.xml.gz link 5": 1,
            "link without xtargets, first at de-en.xml.gz link 6": 1,
            "aligned document that is not there, first at de-en.xml.gz: de/gone.xml": 1,
            "link of a document that is not there, first at de-en.xml.gz link 7": 2,
        }
        assert [one.source for one in reader.provenance] == ["de-en.xml.gz", "de.zip", "en.zip"]
    spec = load_spec(str(tmp_path / "toy.yaml"))
    assert [one.name for one in own_files(spec)] == ["de-en.xml.gz", "de.zip", "en.zip"]


def test_documents_may_lie_in_folders_and_be_compressed(tmp_path: Path) -> None:
    files: dict[str, Any] = {
        f"xml/{name}.xml.gz": gzip.compress(document(body, "letsmt")) for name, body in RAW.items()
    }
    files["de-en.xml"] = ALIGNMENT
    read = {"kind": "opus_xml", "files": "{source}-{target}.xml", "sentences": "xml/{path}"}
    with open_files(tmp_path, read, files, split=BY_DOCUMENT) as reader:
        assert read_pairs(reader) == PAIRS


def test_tokenised_words_are_joined(tmp_path: Path) -> None:
    words = '<s id="1"><chunk type="NP"><w id="1.1">Madam</w>\n <w id="1.2">President</w></chunk> <w id="1.3">!</w></s>'
    parsed = '<s id="1"><w spaceafter="no">Frau</w> <w>s</w> <w spaceafter="no">Haus</w><w>!</w></s>'
    files: dict[str, Any] = {"xml/de/ep-01.xml": document(parsed), "xml/en/ep-01.xml": document(words)}
    files["de-en.xml"] = (
        '<cesAlign><linkGrp fromDoc="de/ep-01.xml" toDoc="en/ep-01.xml"><link xtargets="1;1"/></linkGrp></cesAlign>'
    )
    read = {"kind": "opus_xml", "files": "{source}-{target}.xml", "sentences": "xml/{path}"}
    with open_files(tmp_path, read, files, split=BY_DOCUMENT) as reader:
        assert read_pairs(reader) == [("ep-01", "Madam President !", "Fraus Haus!")]


def test_links_are_chosen_by_certainty(tmp_path: Path) -> None:
    write_zips(tmp_path)
    files = {"de-en.xml.gz": gzip.compress(ALIGNMENT.encode())}
    with open_files(tmp_path, READ | {"min_certainty": 0.5}, files, split=BY_DOCUMENT) as reader:
        assert read_pairs(reader) == [PAIRS[0], PAIRS[2]]
        assert reader.skipped["link with too small a certainty, first at de-en.xml.gz link 2"] == 1
        assert reader.skipped["link without a certainty, first at de-en.xml.gz link 3"] == 3


def test_a_direction_without_the_key_language_has_its_source_first(tmp_path: Path) -> None:
    write_zips(tmp_path)
    files = {"de-en.xml.gz": gzip.compress(ALIGNMENT.encode())}
    with open_files(tmp_path, READ | {"key_language": "fr"}, files, split=BY_DOCUMENT) as reader:
        first = next(iter(reader.rows({"en"})))
        assert (first.language, first.component, first.text) == ("de", "ep-00", PAIRS[0][2])


def test_a_large_document_is_kept_on_the_disk(tmp_path: Path) -> None:
    count = 30_000
    body = "".join(f'<s id="{n}">{n} {n * n}</s>' for n in range(count))
    links = "".join(f'<link xtargets="{n};{n}"/>' for n in reversed(range(count)))
    files: dict[str, Any] = {f"xml/{code}/a.xml": document(body) for code in ("de", "en")}
    files["de-en.xml"] = f'<cesAlign><linkGrp fromDoc="de/a.xml" toDoc="en/a.xml">{links}</linkGrp></cesAlign>'
    read = {"kind": "opus_xml", "files": "{source}-{target}.xml", "sentences": "xml/{path}"}
    with open_files(tmp_path, read, files) as reader:
        texts = [row.text for row in reader.rows({"de"})]
    assert texts == [f"{n} {n * n}" for n in reversed(range(count))]


ENTITIES = '<!DOCTYPE text [<!ENTITY a "aaaa"><!ENTITY x SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    ("alignment", "german", "message"),
    [
        (ALIGNMENT.replace("<cesAlign", "<!DOCTYPE cesAlign [<!ENTITY a 'b'>]><cesAlign").replace(
            '<!DOCTYPE cesAlign PUBLIC "-//CES//DTD XML cesAlign//EN" "">', ""), None, "DOCTYPE declares entities"),
        (ALIGNMENT, f"{ENTITIES}<text><s id='1'>&a;&x;</s></text>", "DOCTYPE declares entities"),
        ("<html/>", None, "outermost element is <html>, not <cesAlign>"),
        ("1 2 3", None, "no valid XML"),
        ("", None, "empty file"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_one_line(tmp_path: Path, alignment: str, german: str | None, message: str) -> None:
    write_zips(tmp_path)
    if german is not None:
        members = {f"Europarl/raw/de/{name}.xml": german.encode() for name in ("ep-00", "ep-01")}
        make_zip(tmp_path / "de.zip", members)
    with (
        open_files(tmp_path, READ, {"de-en.xml.gz": gzip.compress(alignment.encode())}) as reader,
        pytest.raises(UserError) as error,
    ):
        list(reader.rows({"de"}))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"files": "de-en.xml"}, r"'de-en.xml' does not say with \{source\} and \{target\} which languages"),
        ({"sentences": "de.zip/*"}, r"sentences: 'de.zip/\*' does not have \{path\}, the document that is aligned"),
        ({"sentences": "{path}.zip"}, r"is an archive: name the files in it, as in \{path\}.zip/NAME"),
        ({"sentences": "fr.zip/{path}"}, r"there is no file like fr.zip/\{path\}"),
    ],
)
def test_a_wrong_declaration_is_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_zips(tmp_path)
    files = {"de-en.xml.gz": gzip.compress(ALIGNMENT.encode())}
    with pytest.raises(UserError, match=message):
        open_files(tmp_path, READ | changes, files)


def test_a_sentence_file_that_is_cut_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    write_zips(tmp_path)
    make_zip(tmp_path / "de.zip", {"Europarl/raw/de/ep-00.xml": document(RAW["de/ep-00"])[:-90]})
    with open_files(tmp_path, READ, {"de-en.xml.gz": gzip.compress(ALIGNMENT.encode())}) as reader:
        assert len(list(reader.rows({"de"}))) >= 1
        assert any(note.startswith("de.zip/Europarl/raw/de/ep-00.xml: read as far as") for note in reader.unreadable)


def test_documents_of_other_languages_than_the_path_says_are_not_taken_for_them(tmp_path: Path) -> None:
    write_zips(tmp_path)
    with open_files(tmp_path, READ, {"en-de.xml.gz": gzip.compress(ALIGNMENT.encode())}, split=BY_DOCUMENT) as reader:
        assert read_pairs(reader) == []
        reason = "link of a document in another language than the path of the alignment says"
        assert reader.skipped[f"{reason}, first at en-de.xml.gz link 1"] == 7
