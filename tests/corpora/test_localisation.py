"""Localisation files of programs: strings by their keys, escapes, encodings, and what is left out."""

import importlib
import plistlib
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import open_files, texts

from nmt.corpora import CorpusReader
from nmt.errors import UserError

Files = dict[str, bytes | str]


def opened(folder: Path, files: str | list[str], contents: Files, **changes: Any) -> CorpusReader:
    return open_files(folder, {"kind": "localisation", "files": files}, contents, **changes)


def rows_and_skipped(reader: CorpusReader) -> tuple[list[tuple[str, dict[str, str]]], dict[str, int]]:
    rows = texts(reader)
    return rows, dict(reader.skipped)


ANDROID = ["values-{language}/strings.xml", "values/strings.xml"]


def android(body: str) -> str:
    return f'<?xml version="1.0"?><resources xmlns:xliff="urn:x">{body}</resources>'


def android_texts(folder: Path, body: str) -> list[str]:
    files: Files = {"values/strings.xml": android(body), "values-de/strings.xml": android(body)}
    return [text for text, _ in texts(opened(folder, ANDROID, files))]


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"Don\'t open the \"red\" door\nnow", 'Don\'t open the "red" door\nnow'),
        (r'"Don' + "'" + r't  open"', "Don't open"),
        (r"T\u00fcr \ud83d\ude00 \@me \? \\ 100\%", "Tür 😀 @me ? \\ 100%"),
        ("  two\n     lines ", "two lines"),
        ('Hello <xliff:g id="n" example="Bob">%1$s</xliff:g>, <b>you</b> &amp; I', "Hello %1$s, you & I"),
        ("One<br/>two", "One two"),
        ("<![CDATA[Some <b>bold</b> text]]>", "Some <b>bold</b> text"),
        ("%1$d of %2$s", "%1$d of %2$s"),
    ],
)
def test_android_shows_what_a_person_sees(written: str, text: str, tmp_path: Path) -> None:
    assert android_texts(tmp_path, f'<string name="a">{written}</string>') == [text]


def test_android_has_plurals_arrays_products_and_regions(tmp_path: Path) -> None:
    english = android(
        '<string name="a" product="tablet">tablet</string><string name="a" product="default">phone</string>'
        '<plurals name="songs"><item quantity="one">one song</item><item quantity="other">%d songs</item></plurals>'
        '<string-array name="days"><item>Monday</item><item>Tuesday</item></string-array>'
        '<string name="brand" translatable="false">Acme</string><string name="same">@string/a</string>'
        '<string-array name="codes" translatable="false"><item>x</item></string-array><string name="empty"/>'
    )
    german = (
        english.replace("tablet<", "Tablet<").replace("phone", "Handy").replace("one song", "ein Lied")
        .replace("%d songs", "%d Lieder").replace("Monday", "Montag").replace("Tuesday", "Dienstag")
    )  # fmt: skip
    japanese = android('<plurals name="songs"><item quantity="other">%d 曲</item></plurals>')
    files: Files = {
        "values/strings.xml": english,
        "values-de/strings.xml": german,
        "values-b+ja+Jpan/strings.xml": japanese,
        "values-pt-rBR/strings.xml": android('<string name="a">celular</string>'),
        "values-v21/strings.xml": android(""),
    }
    reader = opened(tmp_path, ANDROID, files)
    assert (reader.languages, reader.unregistered) == (["de", "en", "ja", "pt-BR"], ["v21"])
    rows, skipped = rows_and_skipped(reader)
    assert rows == [
        ("phone", {"de": "Handy", "pt-BR": "celular"}),
        ("tablet", {"de": "Tablet"}),
        ("Monday", {"de": "Montag"}),
        ("Tuesday", {"de": "Dienstag"}),
        ("one song", {"de": "ein Lied"}),
        ("%d songs", {"de": "%d Lieder", "ja": "%d 曲"}),
    ]
    assert skipped == {
        "string that is not to be translated, first at values/strings.xml: brand": 4,
        "reference to another string, first at values/strings.xml: same": 2,
        "string without text, first at values/strings.xml: empty": 2,
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "iso-8859-1", "utf-16"])
def test_properties_are_read_with_their_escapes_and_encodings(encoding: str, tmp_path: Path) -> None:
    german = (
        "# Kommentar\n! auch\ndoor=T\\u00fcr auf\nwall : eine lange \\\n    Wand für {0}\nkey\\ 2 hat\\tTab\nempty=\n"
    )
    english = "door = Open the door\nwall=a long wall for {0}\nkey\\ 2=has\\ttab\nempty=\n"
    files: Files = {"messages.properties": english, "messages_de.properties": german.encode(encoding)}
    reader = opened(tmp_path, ["messages_{language}.properties", "messages.properties"], files)
    assert rows_and_skipped(reader) == (
        [
            ("Open the door", {"de": "Tür auf"}),
            ("has\ttab", {"de": "hat\tTab"}),
            ("a long wall for {0}", {"de": "eine lange Wand für {0}"}),
        ],
        {"string without text, first at messages.properties: empty": 2},
    )


QT = """<?xml version="1.0"?><!DOCTYPE TS><TS version="2.1" language="de_DE"{}><context><name>Main</name>
<message><source>Open &amp;door</source><comment>menu</comment><translation>&amp;Tür öffnen</translation></message>
<message><source>Draft</source><translation type="unfinished">Entwurf</translation></message>
<message><source>None</source><translation type="unfinished"></translation></message>
<message><source>Old</source><translation type="obsolete">Alt</translation></message>
<message><source>Gone</source><translation type="vanished">Weg</translation></message>
<message numerus="yes"><source>%n file(s)</source><translation><numerusform>%n Datei</numerusform>
<numerusform>%n Dateien</numerusform></translation></message>
<message><source>Short</source><translation variants="yes"><lengthvariant>Kurzfassung</lengthvariant>
<lengthvariant>Kurz</lengthvariant></translation></message>
<message><source>by<byte value="x41"/>te</source><translation>B<byte value="121"/>te</translation></message>
</context></TS>"""


def test_qt_has_messages_with_finished_translations(tmp_path: Path) -> None:
    reader = opened(tmp_path, "app_{language}.ts", {"app_de.ts": QT.format("")})
    assert rows_and_skipped(reader) == (
        [
            ("Open &door", {"de": "&Tür öffnen"}),
            ("%n file(s)", {"de": "%n Dateien"}),
            ("Short", {"de": "Kurzfassung"}),
            ("byAte", {"de": "Byte"}),
        ],
        {
            "unfinished translation, first at app_de.ts unit 2": 1,
            "untranslated message, first at app_de.ts unit 3": 1,
            "obsolete translation, first at app_de.ts unit 4": 2,
        },
    )
    alone = opened(tmp_path, "*.ts", {"app_de.ts": QT.format(' sourcelanguage="nl"')})
    assert alone.languages == ["de", "nl"]
    alone.close()
    with pytest.raises(UserError, match=r"b.ts: its outermost element is <resources>, not <TS>"):
        opened(tmp_path, "{component}.ts", {"app_de.ts": "", "b.ts": "<resources/>"})


def test_qt_files_of_another_language_than_their_path_are_left_out(tmp_path: Path) -> None:
    files: Files = {"app_fr.ts": QT.format(""), "app_de.ts": QT.format("")}
    rows, skipped = rows_and_skipped(opened(tmp_path, "app_{language}.ts", files))
    assert len(rows) == 4
    assert skipped["unit in another language than its path says, first at app_fr.ts unit 1"] == 4


FLUENT = """### Comment
-brand = Firefox
door = Open { $name } now
    .title = The title
lines =
    First line
    second line { -brand }
emails = You have { $n ->
        [one] one email
       *[other] { $n } emails
    } today.
literal = a { "{" } b { "\\u00e4" }
not fluent here
"""


def test_fluent_has_messages_attributes_and_variants(tmp_path: Path) -> None:
    german = FLUENT.replace("Open", "Öffne").replace("now", "jetzt").replace("The title", "Der Titel")
    japanese = "emails = { $n } 件\ndoor = { $name } を開く\n"
    files: Files = {"en/a.ftl": FLUENT, "de/a.ftl": german, "ja/a.ftl": japanese}
    rows, skipped = rows_and_skipped(opened(tmp_path, "{language}/{component}.ftl", files))
    assert rows == [
        ("Firefox", {"de": "Firefox"}),
        ("Open { $name } now", {"de": "Öffne { $name } jetzt", "ja": "{ $name } を開く"}),
        ("The title", {"de": "Der Titel"}),
        ("You have { $n } emails today.", {"de": "You have { $n } emails today.", "ja": "{ $n } 件"}),
        ("You have one email today.", {"de": "You have one email today."}),
        ("First line\nsecond line { -brand }", {"de": "First line\nsecond line { -brand }"}),
        ("a { b ä", {"de": "a { b ä"}),
    ]
    assert skipped == {"entry that is no valid Fluent, first at en/a.ftl: line 13": 2}


def test_resx_has_strings_and_no_other_resources(tmp_path: Path) -> None:
    def resx(text: str) -> str:
        return (
            '<?xml version="1.0"?><root><xsd:schema xmlns:xsd="x"><xsd:element name="data"/></xsd:schema>'
            f'<resheader name="version"><value>2.0</value></resheader><data name="Door"><value>{text} {{0}}</value>'
            "<comment>no text</comment></data>"
            '<data name="Img" type="System.Resources.ResXFileRef, System.Windows.Forms"><value>a.png;b</value></data>'
            '<data name="Bin" mimetype="application/x"><value>AAEC</value></data><data name="Empty"><value/></data>'
            '<data name="&gt;&gt;button.Name"><value>button</value></data></root>'
        )

    files: Files = {"Resources.resx": resx("Open &lt;b&gt;"), "Resources.de.resx": resx("Öffne &lt;b&gt;")}
    reader = opened(tmp_path, ["{component}.{language}.resx", "{component}.resx"], files)
    assert rows_and_skipped(reader) == (
        [("Open <b> {0}", {"de": "Öffne <b> {0}"})],
        {
            "resource that is no text, first at Resources.resx: Img": 6,
            "string without text, first at Resources.resx: Empty": 2,
        },
    )


STRINGS = (
    '/* "a" = "comment"; */\n"door" = "Open the \\"door\\"\\nnow %@";\n// x\nbare = "T\\U00fcr";\n"two" = "one\ntwo";\n'
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
def test_apple_strings_are_text_in_any_unicode(encoding: str, tmp_path: Path) -> None:
    german = plistlib.dumps({"door": "Tür auf", "two": "zwei", "nested": {"a": "b"}, "bare": "x"})
    files: Files = {"Base.lproj/L.strings": STRINGS.encode(encoding), "de.lproj/L.strings": german}
    reader = opened(tmp_path, "{language}.lproj/{component}.strings", files, languages={"Base": "en"})
    assert rows_and_skipped(reader) == (
        [("Tür", {"de": "x"}), ('Open the "door"\nnow %@', {"de": "Tür auf"}), ("one\ntwo", {"de": "zwei"})],
        {"resource that is no text, first at de.lproj/L.strings: nested": 1},
    )


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("de/strings.xml", "<resources><string name='a'>x</string>", "de/strings.xml: the file ends within an element"),
        ("de/strings.xml", "<TS/>", "de/strings.xml: its outermost element is <TS>, not <resources>"),
        ("de/a.resx", '<!DOCTYPE r [<!ENTITY a "b">]><root/>', "de/a.resx: its DOCTYPE declares entities"),
        ("de/a.properties", "a=\\u12", "de/a.properties: Invalid"),
        ("de/a.strings", '"a" = "b"\n"c" = "d";', "de/a.strings: Missing ';' on line 2"),
        ("de/a.strings", "<?xml version='1.0'?><x/>", "de/a.strings: "),
        ("de/a.ftl", b"a = \xff", "de/a.ftl: 'utf-8' codec"),
    ],
)
def test_damaged_files_are_told_and_left_out(name: str, content: bytes | str, reason: str, tmp_path: Path) -> None:
    pattern = "{language}/" + name.partition("/")[2]
    english: dict[str, str] = {
        "xml": android("<string name='a'>x</string>"), "resx": "<root><data name='a'><value>x</value></data></root>",
        "properties": "a=x", "strings": '"a" = "x";', "ftl": "a = x",
    }  # fmt: skip
    files: Files = {name: content, f"en/{name.partition('/')[2]}": english[name.rpartition(".")[2]]}
    with opened(tmp_path, pattern, files) as reader:
        with pytest.raises(UserError, match="no pair could be read"):
            list(reader.rows({"de"}))
        assert reader.unreadable[0].startswith(reason)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ("{language}.po", r"{language}.po ends in none of .ftl, .*, .ts, .xml; .po is read.kind: gettext"),
        ("{language}.yaml", r"ends in none of .ftl, .*, .xml$"),
        (["{language}.ftl", "{language}.resx"], r"files of several forms \(ftl, resx\) need a corpus each"),
        ("{language}/{language}.ftl", r"has \{language\} more than once"),
        ("{language}.ftl", r"there is no en table among"),
    ],
)  # fmt: skip
def test_patterns_that_cannot_be_read_are_told(files: Any, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        opened(tmp_path, files, {"de.ftl": "a = b"})


def test_a_key_that_comes_again_is_counted_and_the_last_string_counts(tmp_path: Path) -> None:
    files = {"en.properties": "a = first\nb = other\na = last\n", "de.properties": "a = zuletzt\n"}
    assert rows_and_skipped(opened(tmp_path, "{language}.properties", files)) == (
        [("last", {"de": "zuletzt"}), ("other", {})],
        {"string whose key comes again, first at en.properties: a": 1},
    )


@pytest.mark.parametrize("library", ["javaproperties", "openstep_plist", "fluent.syntax"])
def test_a_library_that_is_not_there_is_told(library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    importlib.import_module(library)
    monkeypatch.setitem(importlib.import_module("sys").modules, library, None)
    ending = {"javaproperties": "properties", "openstep_plist": "strings", "fluent.syntax": "ftl"}[library]
    contents: Files = {f"de.{ending}": "a = b", f"en.{ending}": "a = b"}
    message = rf".{ending} files need a library: pip install 'nmt-moe\[localisation\]'"
    with opened(tmp_path, f"{{language}}.{ending}", contents) as reader, pytest.raises(UserError, match=message):
        list(reader.rows({"de"}))


def test_catalogues_whose_messages_are_keys_pair_by_them(tmp_path: Path) -> None:
    def catalogue(*texts: str) -> str:
        keys = ('msgid "menu.open"', 'msgctxt "noun"\nmsgid "menu.open"', 'msgid "menu.new"')
        plain = "".join(f'{key}\nmsgstr "{text}"\n\n' for key, text in zip(keys, texts, strict=False))
        return f'{plain}msgid "songs"\nmsgid_plural "songs"\n' + "".join(
            f'msgstr[{n}] "{text}"\n' for n, text in enumerate(texts[3:])
        )

    files: Files = {
        "en.po": catalogue("_Open the file", "Opening", "New", "%d song", "%d songs"),
        "de.po": catalogue("Datei ö_ffnen", "Öffnung", "", "%d Lied", "%d Lieder"),
        "ja.po": catalogue("開く", "開", "新", "%d 曲"),
        "pl.po": '#, fuzzy\nmsgid "menu.open"\nmsgstr "Otwórz"\n\n' + catalogue("", "", "Nowy", "%d a", "%d b", "%d c"),
    }
    read = {"kind": "gettext", "files": "{language}.po", "keyed": True, "accelerators": "_"}
    assert rows_and_skipped(open_files(tmp_path, read, files)) == (
        [
            ("New", {"ja": "新", "pl": "Nowy"}),
            ("Open the file", {"de": "Datei öffnen", "ja": "開く"}),
            ("%d song", {"de": "%d Lied", "pl": "%d a"}),
            ("%d songs", {"de": "%d Lieder", "ja": "%d 曲", "pl": "%d c"}),
            ("Opening", {"de": "Öffnung", "ja": "開"}),
        ],
        {"message without text, first at de.po: menu.new": 3, "fuzzy message, first at pl.po": 1},
    )
    with pytest.raises(UserError, match=r"there is no en table among"):
        open_files(tmp_path / "b", read, {"de.po": files["de.po"]})


def test_keys_are_not_taken_for_text(tmp_path: Path) -> None:
    content = "".join(f'msgid "menu.item_{n}"\nmsgstr "Eintrag {n}"\n\n' for n in range(12))
    with pytest.raises(
        UserError, match=r"most messages of de.po are keys and no en text, such as menu.item_0; say keyed"
    ):
        texts(open_files(tmp_path, {"kind": "gettext", "files": "{language}.po"}, {"de.po": content}))
