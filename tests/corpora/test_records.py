"""JSON lists, Arrow, and the layouts of Hugging Face's datasets: translations, saved folders, files joined by a key."""

import functools
import gzip
import importlib
import io
import json
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import make_arrow, make_parquet, open_files, texts

from nmt.corpora.readers import json_stream
from nmt.corpora.readers.json_stream import JsonStream, find_lists, go_to, read_values
from nmt.errors import UserError

ROWS = [{"de": "Eins", "en": "one"}, {"de": "Zwei", "en": "two"}]
PAIRS = [("one", {"de": "Eins"}), ("two", {"de": "Zwei"})]
JSON = {"kind": "json", "files": "x.json"}
JSONL = {"kind": "jsonl", "files": "x.jsonl"}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    return functools.partial(open_files, tmp_path)


def lines(records: list[Any]) -> str:
    return "".join(f"{json.dumps(record)}\n" for record in records)


# Lists of JSON objects


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        {"data": ROWS},
        {"version": "1.0", "tags": ["a", ["b"], {}], "set": {"size": 2, "rows": ROWS}, "more": []},
        {"train": [{"translation": row} for row in ROWS]},
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_json_that_is_a_list_or_has_one(value: Any, indent: int | None, corpus: Any) -> None:
    content = json.dumps(value, indent=indent, ensure_ascii=False)
    assert texts(corpus(JSON, {"x.json": content})) == PAIRS
    assert texts(corpus(JSON | {"files": "x.json.gz"}, {"x.json.gz": gzip.compress(content.encode())})) == PAIRS


def test_json_of_objects_one_after_another(corpus: Any) -> None:
    for content in (lines(ROWS), "\n".join(json.dumps(row, indent=1) for row in ROWS), json.dumps(ROWS[0])):
        assert texts(corpus(JSON, {"x.json": content})) == PAIRS[: content.count("Eins") + content.count("Zwei")]


def test_the_key_of_a_list_is_given_where_there_are_several(corpus: Any) -> None:
    files = {"x.json": json.dumps({"train": ROWS, "test": ROWS[1:], "in.ner": {"x": ROWS[:1]}})}
    with pytest.raises(UserError, match=r"x.json has 3 lists of objects: train, test, in.ner.x; .* records: train"):
        corpus(JSON, files)
    assert texts(corpus(JSON | {"records": "test"}, files)) == PAIRS[1:]
    assert texts(corpus(JSON | {"records": "in.ner.x"}, files)) == PAIRS[:1]
    with pytest.raises(UserError, match=r"x.json has no list under dev; see read.records"):
        corpus(JSON | {"records": "dev"}, files)


def test_json_that_is_no_list_of_objects(corpus: Any) -> None:
    source = corpus(JSON, {"x.json": json.dumps([ROWS[0], "note", None, ROWS[1]])})
    assert texts(source) == PAIRS
    assert source.skipped == {"record that is no JSON object, first at x.json:2": 2}
    for value, message in (
        ({"en": ["one"], "de": ["Eins"]}, r"its columns are en, de; .* write an object for each row"),
        ({"en": {"0": "one"}, "de": {"0": "Eins"}}, r"its columns are en, de; .* write an object for each row"),
        ([["Eins", "one"]], r"x.json has no record that can be read"),
        ([{}], r"x.json has no record that can be read"),
        ("text", r"x.json has no record that can be read"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            texts(corpus(JSON, {"x.json": json.dumps(value)}))
        assert "\n" not in str(raised.value)
    with pytest.raises(UserError, match=r"x.json has no column en or de; its columns are none; say under read:"):
        texts(corpus(JSON | {"columns": {"de": "de", "en": "en"}}, {"x.json": "[{}]"}))
    with pytest.raises(UserError, match=r"no pair could be read: x.json: .*Expecting value"):
        corpus(JSON, {"x.json": "<xml/>"})


@pytest.mark.parametrize("cut", [0.5, 0.9])
def test_a_list_that_is_cut_is_read_as_far_as_it_goes(cut: float, corpus: Any) -> None:
    content = json.dumps({"data": ROWS * 500})
    source = corpus(JSON, {"x.json": content[: int(cut * len(content))]})
    found = texts(source)
    assert 0.8 * cut * 1000 < len(found) <= cut * 1000
    (note,) = source.unreadable
    assert note.startswith(f"x.json: read as far as record {len(found):,} (")


def test_json_lines_that_are_none_say_what_to_write(corpus: Any) -> None:
    for content in (json.dumps(ROWS), json.dumps(ROWS, indent=2), json.dumps({"data": ROWS}, indent=2)):
        with pytest.raises(UserError, match=r"x.jsonl begins with [\[{] .*; if it is one JSON list.* kind: json"):
            corpus(JSONL, {"x.jsonl": content})
    with pytest.raises(UserError, match=r"it has a list of objects under data: say under read: kind: json"):
        corpus(JSONL, {"x.jsonl": json.dumps({"data": ROWS})})


def random_value(generator: random.Random, depth: int) -> Any:
    kind = generator.randrange(7 if depth else 4)
    if kind == 0:
        return generator.choice([None, True, -0.5e-7, 123456789, 0])
    if kind < 4:
        return "".join(generator.choices('aé"\\{}[],: \n한😀', k=generator.randrange(9)))
    if kind < 6:
        return {str(random_value(generator, 0)): random_value(generator, depth - 1) for _ in range(3)}
    return [random_value(generator, depth - 1) for _ in range(generator.randrange(4))]


def test_the_stream_agrees_with_the_standard_library_wherever_its_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(7)
    for chunk in (1, 2, 3, 5, 64):
        monkeypatch.setattr(json_stream, "_CHUNK", chunk)
        for _ in range(30):
            values = [random_value(generator, 3) for _ in range(4)]
            outer = {"a": random_value(generator, 2), "b.c": {"d": values}, "e": 1}
            for ascii_only in (True, False):
                content = json.dumps(values, ensure_ascii=ascii_only).encode()
                assert list(read_values(JsonStream(io.BytesIO(content)))) == values
                stream = JsonStream(io.BytesIO(json.dumps(outer, indent=1, ensure_ascii=ascii_only).encode()))
                assert go_to(stream, "b.c.d")
                assert [stream.value() for _ in stream.items()] == values


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("[]", [()]),
        ("{}", []),
        ('{"a": []}', []),
        ('{"a": [{}], "b": {"c": [{}, 1]}}', [("a",), ("b", "c")]),
        ("{}{}", None),
    ],
)
def test_lists_of_objects_are_found(content: str, found: Any) -> None:
    assert find_lists(JsonStream(io.BytesIO(content.encode()))) == found


def test_a_value_that_never_ends_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_stream, "_MOST_CHARACTERS", 1 << 17)

    class Endless(io.RawIOBase):
        read_bytes = 0

        def read(self, size: int = -1) -> bytes:
            self.read_bytes += size
            return b"x" * size

    file = Endless()
    stream = JsonStream(io.BytesIO(b'["'))
    stream._file = file
    stream._text = '["'
    with pytest.raises(ValueError, match="Unterminated string"):
        list(read_values(stream))
    assert file.read_bytes < 1 << 20


# Names with dots


def test_two_columns_of_one_name_in_parquet_are_refused(corpus: Any, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    columns = [pyarrow.array([text]) for text in ("Eins", "One", "Zwei")]
    table = pyarrow.Table.from_arrays(columns, names=["de", "en", "de"])
    importlib.import_module("pyarrow.parquet").write_table(table, tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: several columns are called de"):
        corpus({"kind": "parquet", "files": "x.parquet"}, {})


@pytest.mark.parametrize("columns", [{}, {"columns": {"de": "text.de", "en": "text.en"}}])
def test_names_with_dots_are_names(columns: Mapping[str, Any], corpus: Any, tmp_path: Path) -> None:
    rows = [{f"text.{code}": text for code, text in row.items()} for row in ROWS]
    assert texts(corpus(JSONL | columns, {"x.jsonl": lines(rows)})) == PAIRS
    make_parquet(tmp_path / "x.parquet", {name: [row[name] for row in rows] for name in rows[0]})
    assert texts(corpus({"kind": "parquet", "files": "x.parquet", **columns}, {})) == PAIRS


def test_a_literal_name_wins_over_a_path_and_two_paths_are_an_error(corpus: Any, tmp_path: Path) -> None:
    read = JSONL | {"columns": {"de": "t.x.de", "en": "en"}}
    both = {"t.x.de": "Eins", "t": {"x": {"de": "falsch"}, "x.de": "falsch"}, "t.x": {"de": "falsch"}, "en": "one"}
    assert texts(corpus(read, {"x.jsonl": lines([both])})) == PAIRS[:1]
    path = {"t": {"x": {"de": "Eins"}}, "en": "one"}
    assert texts(corpus(read, {"x.jsonl": lines([path])})) == PAIRS[:1]
    two = {"t": {"x.de": "Eins"}, "t.x": {"de": "Eins"}, "en": "one"}
    with pytest.raises(UserError, match=r"x.jsonl: column t.x.de may be 't' > 'x.de' and 't.x' > 'de'; rename one"):
        texts(corpus(read, {"x.jsonl": lines([two])}))
    make_parquet(tmp_path / "x.parquet", {name: [value] for name, value in two.items()})
    with pytest.raises(UserError, match=r"x.parquet: column t.x.de may be 't' > 'x.de' and 't.x' > 'de'; rename one"):
        texts(corpus(read | {"kind": "parquet", "files": "x.parquet"}, {}))


# Translations of Hugging Face's datasets

VARIABLE = [
    {"language": ["de", "en", "qqq"], "translation": ["Eins", "one", "x"]},
    {"language": ["en", "fr", "en"], "translation": ["two", "deux", "the second"]},
]
AS_TEXTS = [("one", {"de": "Eins"}), ("two", {"fr": "deux"})]
AGAIN = {"further text of a language that the row has, first at {}:2": 1}


@pytest.mark.parametrize("column", ["translation", "translations", "texts"])
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "arrow"])
def test_languages_that_differ_from_row_to_row(kind: str, column: str, corpus: Any, tmp_path: Path) -> None:
    objects = [[{"language": code, "text": text} for code, text in zip(*row.values(), strict=True)] for row in VARIABLE]
    for values in (VARIABLE, objects):
        records = [{"id": place, column: value} for place, value in enumerate(values)]
        name = f"x.{kind}"
        match kind:
            case "jsonl":
                (tmp_path / name).write_text(lines(records))
            case "json":
                (tmp_path / name).write_text(json.dumps(records))
            case "parquet":
                make_parquet(tmp_path / name, {"id": [0, 1], column: values})
            case "arrow":
                make_arrow(tmp_path / name, {"id": [0, 1], column: values})
        source = corpus({"kind": kind, "files": name}, {})
        assert source.languages == ["de", "en", "fr"]
        assert source.unregistered == ["qqq"]
        assert texts(source) == AS_TEXTS
        assert source.skipped == {key.format(name): count for key, count in AGAIN.items()}


def test_lists_of_languages_that_are_the_record_itself(corpus: Any) -> None:
    assert texts(corpus(JSONL, {"x.jsonl": lines(VARIABLE)})) == AS_TEXTS


def test_arrow_maps_are_translations(corpus: Any, tmp_path: Path) -> None:
    import pyarrow

    kind = pyarrow.map_(pyarrow.string(), pyarrow.string())
    make_parquet(tmp_path / "x.parquet", {"translation": pyarrow.array([[*row.items()] for row in ROWS], kind)})  # type: ignore[dict-item]
    assert texts(corpus({"kind": "parquet", "files": "x.parquet"}, {})) == PAIRS


def test_a_language_that_comes_late_is_found_and_two_spellings_are_united(corpus: Any) -> None:
    late = [{"t": [{"lang": "en", "text": "x"}, {"lang": "no", "text": "y"}]}] * 500
    late += [{"t": [{"lang": "en", "text": "z"}, {"lang": "nb", "text": "w"}]}]
    late += [{"t": [{"lang": "en", "text": "last"}, {"lang": "sw", "text": "mwisho"}]}]
    source = corpus(JSONL, {"x.jsonl": lines(late)})
    assert source.languages == ["en", "nb", "sw"]
    found = texts(source)
    assert len(found) == 502
    assert found[-2:] == [("z", {"nb": "w"}), ("last", {"sw": "mwisho"})]


@pytest.mark.parametrize("ending", ["parquet", "arrow", "jsonl", "json"])
def test_a_folder_for_each_direction_with_a_translation_column(ending: str, corpus: Any, tmp_path: Path) -> None:
    (tmp_path / "de-en").mkdir()
    name = "{}-00000-of-00001." + ending
    for split, row in zip(("train", "test"), ROWS, strict=True):
        record = {"translation": [row], "source": ["books"]}
        path = tmp_path / "de-en" / name.format(split)
        if ending in ("parquet", "arrow"):
            (make_parquet if ending == "parquet" else make_arrow)(path, record)
        else:
            path.write_text(json.dumps({key: values[0] for key, values in record.items()}) + "\n" * 2)
    read = {"kind": ending, "files": "{source}-{target}/{component}-*-of-*." + ending}
    splits = {"by": "name", "test": ["test"]}
    for section in (read, read | {"kind": "any"}):
        with corpus(section, {}, split=splits) as source:
            rows = [(row.component, row.text, row.translations) for row in source.rows({"de", "en"})]
            assert (source.has("de", "en"), source.has("de", "fr")) == (True, False)
        assert rows == [("test", *PAIRS[1]), ("train", *PAIRS[0])]


# Saved datasets


def save(folder: Path, rows: list[dict[str, Any]], split: str, files: int = 1, **state: Any) -> None:
    names = [f"data-{place:05d}-of-{files:05d}.arrow" for place in range(files)]
    for place, name in enumerate(names):
        make_arrow(folder / name, {"translation": rows[place::files]})
    (folder / "dataset_info.json").write_text("{}")
    state = {"_data_files": [{"filename": name} for name in names], "_split": split, **state}
    (folder / "state.json").write_text(json.dumps(state))


def test_folders_of_save_to_disk(corpus: Any, tmp_path: Path) -> None:
    save(tmp_path / "both" / "train", ROWS, "train", files=2)
    save(tmp_path / "both" / "test", ROWS[:1], "test")
    (tmp_path / "both" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    make_arrow(tmp_path / "both" / "train" / "cache-0123.arrow", {"translation": ROWS})
    save(tmp_path / "one", ROWS[1:], "validation")
    for folder, expected in (
        ("both", [("test", *PAIRS[0]), ("train", *PAIRS[0]), ("train", *PAIRS[1])]),
        ("one/", [("validation", *PAIRS[1])]),
        ("{component}", [("one", *PAIRS[1])]),
    ):
        with corpus({"kind": "arrow", "files": folder}, {}, split={"by": "component", "test": 0, "dev": 0}) as source:
            assert [(row.component, row.text, row.translations) for row in source.rows({"de"})] == expected


def test_saved_datasets_that_cannot_be_read(corpus: Any, tmp_path: Path) -> None:
    save(tmp_path / "chosen", ROWS, "train", _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(UserError, match=r"chosen/state.json: the dataset is a choice of the rows of its files"):
        corpus({"kind": "arrow", "files": "chosen"}, {})
    with pytest.raises(UserError, match=r"there is no file like nothing/{component}/\*.arrow or nothing/\*.arrow in"):
        corpus({"kind": "arrow", "files": "nothing"}, {})
    with pytest.raises(UserError, match=r"corpus toy: no pair could be read: x.arrow: "):
        corpus({"kind": "arrow", "files": "x.arrow"}, {"x.arrow": b"no, it is none"})


def test_arrow_says_what_to_install(corpus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pyarrow", "pyarrow.feather"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"x.arrow is an Arrow file: pip install 'nmt-moe\[parquet\]'"):
        corpus({"kind": "arrow", "files": "x.arrow"}, {"x.arrow": b""})


def test_feather_files_are_arrow_in_another_format(corpus: Any, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.feather

    table = pyarrow.table({"de": ["Eins", "Zwei"], "en": ["one", "two"]})
    pyarrow.feather.write_feather(table, tmp_path / "x.feather", compression="uncompressed")
    assert texts(corpus({"kind": "arrow", "files": "x.feather"}, {})) == PAIRS


# Files of a language each that share a key


def flores(code: str, rows: Mapping[int, str]) -> list[dict[str, Any]]:
    return [{"id": key, "iso_639_3": code, "iso_15924": "Latn", "text": text} for key, text in rows.items()]


def test_files_of_a_language_each_are_joined_by_a_key(corpus: Any, tmp_path: Path) -> None:
    files = {
        "dev/deu_Latn.jsonl": lines(flores("deu", {2: "Zwei", 1: "Eins", 7: "Sieben"})),
        "dev/eng_Latn.jsonl": lines(flores("eng", {1: "one", 2: "two", 3: "three"})),
        "dev/fra_Latn.jsonl": lines(flores("fra", {2: "deux"})),
        "devtest/deu_Latn.jsonl": lines(flores("deu", {1: "Anders"})),
        "devtest/eng_Latn.jsonl": lines(flores("eng", {1: "different"})),
    }
    read = {"kind": "jsonl", "files": "{component}/{language}.jsonl", "id": "id"}
    expected = [("one", {"de": "Eins"}), ("two", {"de": "Zwei", "fr": "deux"}), ("different", {"de": "Anders"})]
    source = corpus(read, files)
    assert source.has("de", "fr")
    assert texts(source) == expected
    assert source.skipped == {
        "row whose key the files of other languages do not have, first at dev/eng_Latn.jsonl:3": 2
    }
    assert texts(corpus(read, {}), "fr") == [("two", {"fr": "deux"})]
    for part in ("dev", "devtest"):
        for code in ("deu_Latn", "eng_Latn", "fra_Latn"):
            if (path := tmp_path / part / f"{code}.jsonl").exists():
                records = [json.loads(line) for line in path.read_text().splitlines()]
                make_parquet(path.with_suffix(".parquet"), {key: [row[key] for row in records] for key in records[0]})
    assert texts(corpus(read | {"kind": "parquet", "files": "{component}/{language}.parquet"}, {})) == expected


def test_keys_that_are_missing_or_come_again(corpus: Any) -> None:
    files = {
        "de.csv": "key,sentence\na,Eins\na,nochmals\n,ohne\nb,\nc\n",
        "en.csv": "key,sentence\nb,two\na,one\na,again\n",
    }
    source = corpus({"kind": "csv", "files": "{language}.csv", "id": "key", "columns": {"language": "sentence"}}, files)
    assert texts(source) == [("one", {"de": "Eins"})]
    assert source.skipped == {
        "row whose key the file has already, first at de.csv:3": 2,
        "row without a key, first at de.csv:4": 1,
        "row without text on a side, first at de.csv:5": 1,
        "line with too few columns, first at de.csv:6": 1,
        "row whose key the files of other languages do not have, first at en.csv:2": 1,
    }


@pytest.mark.parametrize(
    ("read", "message"),
    [
        ({"id": "id"}, r"'x.jsonl' does not have {language} once each"),
        ({"files": "{language}.jsonl", "id": "id", "columns": {"de": "text"}}, r"columns is {language: NAME}"),
        ({"kind": "tsv", "files": "{language}.tsv", "id": 0}, r"with id, say which column has the text"),
        ({"files": "{language}.jsonl", "id": "key"}, r"de.jsonl has no column key; its columns are id, text"),
        (
            {"files": "{language}.jsonl", "id": "id", "columns": {"language": "t"}},
            r"has no column t; its columns are id",
        ),
        ({"files": "{language}.jsonl", "columns": {"language": "text"}}, r"if files of one language each have a key"),
    ],
)
def test_joins_that_cannot_be_made(read: Any, message: str, corpus: Any) -> None:
    files = {"de.jsonl": lines([{"id": 1, "text": "x"}]), "en.jsonl": lines([{"id": 1, "text": "y"}])}
    with pytest.raises(UserError, match=message) as raised:
        texts(corpus(JSONL | read, files))
    assert "\n" not in str(raised.value)


# Columns that are named like languages


@pytest.mark.parametrize(
    "values", [[7, 8], ["7", "8"], ["doc-1", "doc-2"], [True, False], ["a", "b"], ["https://a.b/c"] * 2]
)
@pytest.mark.parametrize("name", ["id", "ID", "no", "is", "or"])
def test_a_column_is_of_a_language_only_if_it_has_text(name: str, values: list[Any], corpus: Any) -> None:
    rows = [{name: value, **row} for value, row in zip(values, ROWS, strict=True)]
    source = corpus(JSONL, {"x.jsonl": lines(rows)})
    assert source.languages == ["de", "en"]
    assert texts(source) == PAIRS
    assert source.skipped == {f"column that is named like a language and has no text, first at x.jsonl: {name}": 1}


@pytest.mark.parametrize(
    "values", [["satu", "dua"], ["a", "dua"], ["angka satu", "angka dua"], [None, "dua"], ["", "一"]]
)
def test_a_column_of_text_is_of_the_language_of_its_name(values: list[Any], corpus: Any) -> None:
    rows = [{"id": value, **row} for value, row in zip(values, ROWS, strict=True)]
    with corpus(JSONL, {"x.jsonl": lines(rows)}) as source:
        assert source.languages == ["de", "en", "id"]
        assert source.skipped == {}


def test_single_words_beside_sentences_are_identifiers(corpus: Any) -> None:
    rows = [{"id": key, "de": "Ein ganzer Satz", "en": "a whole sentence"} for key in ("abcd", "efgh", "ijkl")]
    with corpus(JSONL, {"x.jsonl": lines(rows)}) as source:
        assert source.languages == ["de", "en"]
    nested = [{"id": "ini sebuah kalimat", "translation": row} for row in ROWS]
    with corpus(JSONL, {"x.jsonl": lines(nested)}) as source:
        assert source.languages == ["de", "en"]


def test_a_declared_column_is_of_its_language_whatever_it_has(corpus: Any) -> None:
    source = corpus(JSONL | {"columns": {"id": "id", "en": "en"}}, {"x.jsonl": lines([{"id": "7", "en": "seven"}])})
    assert texts(source) == [("seven", {"id": "7"})]


def test_machine_translation_is_not_maltese(corpus: Any) -> None:
    rows = [{"en": "one", "de": "Eins", "mt": "Ein", "src": "x"}]
    with corpus(JSONL, {"x.jsonl": lines(rows)}) as source:
        assert source.languages == ["de", "en"]
    with corpus(JSONL, {"x.jsonl": lines([{"en": "one", "mt": "wieħed"}])}) as source:
        assert source.languages == ["en", "mt"]


def test_codes_of_languages_are_no_text(corpus: Any) -> None:
    files = {"x.jsonl": lines([{"as": "de", "to": "en", **ROWS[0]}, {"as": "en", "to": "de", **ROWS[1]}])}
    with corpus(JSONL, files) as source:
        assert source.languages == ["de", "en"]


def test_two_columns_of_one_language_are_an_error(corpus: Any) -> None:
    rows = [{"title.en": "title", "text.en": "one", "text.de": "Eins"}]
    with pytest.raises(UserError, match=r"x.jsonl has 2 columns of en: title.en and text.en; say under read: which"):
        corpus(JSONL, {"x.jsonl": lines(rows)})
    with pytest.raises(
        UserError, match=r"has no column of two languages; column that is named like a language and has"
    ):
        corpus(JSONL, {"x.jsonl": lines([{"id": 1, "de": "Eins"}])})
    with pytest.raises(UserError, match=r"de and deu are all de, for the same texts"):
        corpus(JSONL, {"x.jsonl": lines([{"de": "Eins", "deu": "Zwei", "en": "one"}])})


@pytest.mark.parametrize("nested", [False, True])
def test_languages_that_come_after_the_first_records_are_counted(corpus: Any, nested: bool) -> None:
    rows = [{"de": "Ein Haus", "en": "a house"}] * 100
    later = [{"fr": "une maison", "en": "a house"}, {"fr": "", "en": "a house"}, {"fr": "deux maisons", "de": "Zwei"}]
    opened = corpus(JSONL, {"x.jsonl": lines([{"translation": row} if nested else row for row in [*rows, *later]])})
    assert len(texts(opened)) == 100
    kind = "text in a column of a language that the first 100 records do not have (say columns:), first at x.jsonl:101"
    assert opened.skipped[kind] == 2


# Every ending


def test_files_of_pairs_of_every_ending(corpus: Any, tmp_path: Path) -> None:
    columns = {code: [row[code] for row in ROWS] for code in ("de", "en")}
    (tmp_path / "de-en.csv").write_text("source,target\nEins,one\nZwei,two\n")
    (tmp_path / "de-en.tsv").write_text("Eins\tone\nZwei\ttwo\n")
    (tmp_path / "de-en.ndjson").write_text(lines(ROWS))
    (tmp_path / "de-en.jsonl").write_text(lines(ROWS))
    (tmp_path / "de-en.json").write_text(json.dumps(ROWS))
    make_parquet(tmp_path / "de-en.parquet", columns)
    make_arrow(tmp_path / "de-en.arrow", columns)
    for ending in ("csv", "tsv", "ndjson", "jsonl", "json", "parquet", "arrow"):
        assert texts(corpus({"kind": "any", "files": f"{{source}}-{{target}}.{ending}"}, {})) == PAIRS
    with pytest.raises(UserError, match=r"other files of pairs end in .tsv, .csv, .jsonl, .json, .parquet or .arrow"):
        corpus({"kind": "any", "files": "{source}-{target}.xlsx"}, {})
