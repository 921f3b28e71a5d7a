"""Test sets as they are published: a file a language, WMT, TICO-19, several references; and their directions."""

import gzip
import hashlib
import json
import time
from pathlib import Path

import pytest
import sacrebleu
from toy_corpus import make_parquet
from toy_evaluation import FakeTranslator

from nmt.config import DataConfig, Recipe
from nmt.errors import UserError
from nmt.evaluate import language_files
from nmt.evaluate.matrix import evaluate
from nmt.evaluate.metrics import score
from nmt.evaluate.pairs import Pair, content_hash
from nmt.evaluate.samples import read_samples
from nmt.evaluate.sets import EvaluationSet, open_set, select
from nmt.languages import Direction, all_languages, parse_direction

TEXT = {
    "de": ["Die rote Tür ist offen", "Mein Bruder liest heute"],
    "en": ["The red door is open", "My brother reads today"],
    "fr": ["La porte rouge est ouverte", "Mon frère lit aujourd'hui"],
}
RECIPE = Recipe(name="toy", data=DataConfig(corpora=("toy",), directions=("de-en", "en-de", "fr-en", "en-fr")))
DE_EN, EN_DE = map(parse_direction, ("de-en", "en-de"))


def write(folder: Path, files: dict[str, str | list[str] | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(f"{line}\n" for line in content) if isinstance(content, list) else content
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return folder


def opened(testset: Path | str, *pairs: str) -> EvaluationSet:
    return open_set("nowhere", str(testset), list(pairs) or None)


def directions(found: EvaluationSet) -> set[str]:
    return set(map(str, found.files))


ALL_THREE = {f"{source}-{target}" for source in TEXT for target in TEXT if source != target}


def json_records(texts: list[str]) -> str:
    # As FLORES+ has them, in an order of their own.
    return "".join(json.dumps({"id": n, "text": texts[n], "url": "x"}) + "\n" for n in reversed(range(len(texts))))


@pytest.mark.parametrize(
    "files",
    [
        {"deu_Latn.devtest": TEXT["de"], "eng_Latn.devtest": TEXT["en"], "fra_Latn.devtest": TEXT["fr"]},
        {"dev.deu_Latn": TEXT["de"], "dev.eng_Latn": TEXT["en"], "dev.fra_Latn": TEXT["fr"], "README.md": "read me"},
        {f"test.{code}.gz": gzip.compress("\n".join(lines).encode()) for code, lines in TEXT.items()},
        {
            "newstest2019-src.eng.txt": TEXT["en"],
            "newstest2019-ref.deu.txt": TEXT["de"],
            "newstest2019-ref.fra.txt": TEXT["fr"],
        },
        {f"{code}.jsonl": json_records(lines) for code, lines in TEXT.items()},
        {
            f"{code}_Latn.csv": "id,text\n" + "".join(f'{n},"{line}"\n' for n, line in enumerate(lines))
            for code, lines in zip(("deu", "eng", "fra"), TEXT.values(), strict=True)
        },
        {
            f"{code}.tsv": "id\ttext\n" + "".join(f"{n}\t{line}\n" for n, line in enumerate(lines))
            for code, lines in TEXT.items()
        },
    ],
    ids=["flores200", "flores101", "moses.gz", "ntrex", "flores+ jsonl", "flores+ csv", "flores+ tsv"],
)
def test_a_folder_with_a_file_a_language_gives_every_direction(files, tmp_path):
    found = opened(write(tmp_path / "set", files))
    assert directions(found) == ALL_THREE
    for direction in found.files:
        assert found.read(direction) == list(map(Pair, TEXT[direction.source], TEXT[direction.target]))
    chosen = select(found, RECIPE, None)
    # Those of the recipe first, then zero-shot ones.
    assert list(map(str, chosen.directions)) == ["de-en", "en-de", "fr-en", "en-fr", "de-fr", "fr-de"]


def test_parquet_of_a_language_each(tmp_path):
    for code in ("deu_Latn", "eng_Latn"):
        lines = TEXT["de" if code.startswith("deu") else "en"]
        make_parquet(tmp_path / f"{code}.parquet", {"id": [1, 0], "text": lines[::-1], "domain": ["news", "news"]})
    assert opened(tmp_path).read(DE_EN) == list(map(Pair, TEXT["de"], TEXT["en"]))


def test_directions_are_chosen_by_patterns(tmp_path):
    folder = write(tmp_path, {f"test.{code}": lines for code, lines in (TEXT | {"sv": TEXT["de"]}).items()})
    found = opened(folder)

    def chosen(*wanted: str) -> list[str]:
        return list(map(str, select(found, RECIPE, wanted).directions))

    assert chosen("*-en") == ["de-en", "fr-en"]
    assert chosen("eng_Latn-*") == ["en-de", "en-fr"]
    assert chosen("fr-de", "*-en", "de-en") == ["fr-de", "de-en", "fr-en"]
    assert set(chosen("all")) == set(chosen("*-*")) == ALL_THREE
    assert select(found, RECIPE, None).left_out["sv-en"] == "the model does not know sv"
    for wanted, message in (("*-sv", r"no direction .* that the model can translate is \*-sv"), ("*-xx", "'xx'")):
        with pytest.raises(UserError, match=message):
            chosen(wanted)


def test_two_hundred_languages_are_read_once_each_in_bounded_memory(tmp_path, monkeypatch):
    codes = [language.code for language in all_languages()][:200]
    write(tmp_path, {f"test.{code}": [f"{code} {n}" for n in range(5)] for code in codes})
    recipe = Recipe(
        name="x", data=DataConfig(corpora=("x",), directions=tuple(f"{code}-en" for code in codes if code != "en"))
    )
    reads: list[Path] = []
    monkeypatch.setattr(
        language_files, "_read", lambda path, real=language_files._read: reads.append(path) or real(path)
    )
    began = time.monotonic()
    found = opened(tmp_path)
    chosen = select(found, recipe, None).directions
    assert len(chosen) == 200 * 199
    small = Recipe(name="x", data=DataConfig(corpora=("x",), directions=("de-en",)))
    selection = select(found, small, None)
    assert list(map(str, selection.directions)) == ["de-en", "en-de"]
    assert selection.left_out == dict.fromkeys(sorted({*codes} - {"de", "en"}), "the model does not know it")
    assert time.monotonic() - began < 60
    for direction in chosen[:2000]:
        assert len(found.read(direction)) == 5
    assert len(reads) == 200
    kept = language_files.TextCache(most=100)
    for path in sorted(set(reads)):
        kept.texts(path)
    assert 0 < sum(len(text) for texts in kept._texts.values() for text in texts) <= 100


def test_files_of_unequal_lengths_are_named_with_their_numbers(tmp_path):
    write(tmp_path, {"test.de": TEXT["de"], "test.en": TEXT["en"], "test.fr": TEXT["fr"][:1]})
    found = opened(tmp_path)
    with pytest.raises(
        UserError, match=r"test\.\w\w and .*test\.\w\w .* unequal numbers of sentences: (1 and 2|2 and 1); remove one"
    ):
        select(found, RECIPE, None)
    assert select(found, RECIPE, ["de-en"]).directions == [DE_EN]  # which do not need the short one
    write(
        tmp_path / "ids",
        {"de.jsonl": json_records(TEXT["de"]), "en.jsonl": '{"id": 0, "text": "a"}\n{"id": 7, "text": "b"}'},
    )
    with pytest.raises(UserError, match=r"de\.jsonl and .*en\.jsonl are of one test set, and have other ids"):
        select(opened(tmp_path / "ids"), RECIPE, ["de-en"])


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"test.de": ["a"], "test.en": ["a"], "dev.de": ["a"], "dev.en": ["a"]},
            r"several test sets \(dev, test\): name",
        ),
        ({"dev/de.txt": ["a"], "devtest/de.txt": ["a"]}, "it is in a folder below: dev, devtest"),
        (
            {"devtest/de.devtest": ["a"], "metadata_dev.tsv": ["URL\tdomain"], "README": ["a"]},
            "a folder below: devtest",
        ),
        ({"x.de": ["a"], "x.deu": ["a"], "x.en": ["a"]}, r"x\.de and .*x\.deu are all de: remove all but one"),
        ({"x.de": ["a", " "], "x.en": ["a", "b"]}, r"x\.de:2: the line is blank"),
        ({"x.de": b"\xff\n", "x.en": ["a"]}, r"x\.de is not UTF-8"),
        ({"x.de": b"PK\x03\x04", "x.en": ["a"]}, r"cannot read .*x\.de: it is a zip archive"),
        ({"de.json": "[]", "en.json": "[]"}, r"de\.json is no text of one language"),
        ({"de.jsonl": "[]\n", "en.jsonl": "{}\n"}, r"cannot read .*de\.jsonl: line 1 is no JSON object"),
        (
            {"de.jsonl": '{"id": 1}\n', "en.jsonl": "{}\n"},
            r"de\.jsonl: record 1 has no text in a column text or sentence",
        ),
        ({"de.jsonl": '{"id": 1, "text": "a"}\n' * 2, "en.jsonl": "{}\n"}, "two records have the id 1"),
        ({"x.de.gz": b"no", "x.en": ["a"]}, r"cannot read .*x\.de\.gz: Not a gzipped file"),
        ({"x.de": ["a"]}, "holds no test set"),
        (
            {
                "t-src.de.sgm": '<srcset setid="t" srclang="de"><doc docid="a"><seg id="1">x</seg></doc></srcset>',
                "t-ref.en.sgm": '<refset setid="t" trglang="en"><doc docid="b"><seg id="1">x</seg></doc></refset>',
            },
            r"holds no test set: .*; left out: .*t-ref.en.sgm and .*t-src.de.sgm, without a segment that has a source",
        ),
    ],
)
def test_mistakes_in_folders_are_one_line(files, message, tmp_path):
    with pytest.raises(UserError, match=message) as raised:
        select(opened(write(tmp_path / "set", files)), RECIPE, None)
    assert "\n" not in str(raised.value)


def test_a_pattern_names_one_of_several_sets(tmp_path):
    write(tmp_path, {f"{part}.{code}": [f"{part} {code}"] for part in ("dev", "test") for code in ("de", "en")})
    found = opened(f"{tmp_path}/dev.*")
    assert found.read(DE_EN) == [Pair("dev de", "dev en")]
    assert found.name.startswith("dev-")
    assert found.name != opened(f"{tmp_path}/test.*").name


def test_varieties_give_way_to_the_language_itself(tmp_path: Path) -> None:
    # FLORES+ has each of these beside the code of the language.
    varieties = {
        "cat_Latn_vale1252": "ca",
        "lld_Latn_gard1241": "lld",
        "nob_Latn_radical": "nb",
        "oci_Latn_aran1260": "oc",
    }
    main = {code[:8]: [f"{language} itself"] for code, language in varieties.items()}
    files = {f"{code}.devtest": lines for code, lines in [*main.items(), *((code, ["variety"]) for code in varieties)]}
    found = opened(write(tmp_path, {**files, "eng_Latn.devtest": TEXT["en"][:1]}))
    assert [found.read(parse_direction(f"{code}-en"))[0].source for code in varieties.values()] == [
        f"{language} itself" for language in varieties.values()
    ]
    assert sorted(found.notes) == [
        f"left out: {code}.devtest, since {code[:8]}.devtest is {language} itself"
        for code, language in varieties.items()
    ]
    alone = opened(write(tmp_path / "alone", {"cat_Latn_vale1252.txt": ["x"], "eng_Latn.txt": ["y"]}))
    assert directions(alone) == {"ca-en", "en-ca"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("de.csv", 'id,text\n1,a\n2,"b\n', "row 2: unexpected end of data"),
        ("de.csv", "id,text\n1,a\n2,b, and c\n", "row 2 has more cells than there are names"),
        ("de.csv", f"id,text\n1,a\n2,{'b ' * 70_000}\n", "row 2: field larger than field limit"),
        ("de.txt", "a\rb\r", "its lines end with a carriage return alone"),
        ("de.tsv", "id\ttext\n1\ta\n2\tb\tc\n", "row 2 has more cells than there are names"),
        ("de.jsonl", '{"text": "a"}\n{"text": "\\ud800"}\n', "record 2 has half a surrogate pair"),
    ],
)
def test_rows_that_cannot_be_read_whole_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    lines = {
        "txt": "x\ny\n",
        "csv": "id,text\n1,x\n2,y\n",
        "tsv": "id\ttext\n1\tx\n2\ty\n",
        "jsonl": '{"text": "x"}\n{"text": "y"}\n',
    }
    ending = name.partition(".")[2]
    folder = write(tmp_path, {name: content, f"en.{ending}": lines[ending]})
    with pytest.raises(UserError, match=message):
        opened(folder).read(DE_EN)


def test_regions_give_way_and_unknown_languages_are_told(tmp_path):
    files = {
        "n-src.eng.txt": TEXT["en"],
        "n-ref.eng-US.txt": ["x", "y"],
        "n-ref.deu.txt": TEXT["de"],
        "n-ref.qqq.txt": ["z"],
    }
    found = opened(write(tmp_path, files))
    assert directions(found) == {"de-en", "en-de"}
    assert found.read(DE_EN)[0] == Pair(TEXT["de"][0], TEXT["en"][0])
    assert found.notes == (
        "left out: n-ref.qqq.txt, not named after a language that is known",
        "left out: n-ref.eng-US.txt, since n-src.eng.txt is en itself",
    )


# Several references


def test_plain_text_with_several_references(tmp_path):
    files = {"test.de": TEXT["de"], "test.en.ref0": TEXT["en"], "test.en.ref1": ["A red door", "He reads"]}
    expected = [Pair(d, e, (o,)) for d, e, o in zip(*files.values(), strict=True)]
    found = opened(write(tmp_path, files))
    assert directions(found) == {"de-en"}
    assert found.read(DE_EN) == expected
    listed = opened(",".join(str(tmp_path / name) for name in files))
    assert listed.read(DE_EN) == expected


def test_files_whose_names_say_no_language_need_a_direction(tmp_path):
    write(tmp_path, {"in.txt": TEXT["de"], "out-a.txt": TEXT["en"], "out-b.txt": ["A", "B"]})
    listed = f"{tmp_path}/in.txt, {tmp_path}/out-a.txt,{tmp_path}/out-b.txt"
    assert opened(listed, "de-en").read(DE_EN)[1] == Pair(TEXT["de"][1], TEXT["en"][1], ("B",))
    with pytest.raises(UserError, match="exactly one pair, such as --pairs de-en"):
        opened(listed)
    with pytest.raises(UserError, match="both de"):
        opened(f"{write(tmp_path, {'a.de': ['x'], 'b.de': ['x']})}/a.de,{tmp_path}/b.de")
    with pytest.raises(UserError, match=r"no test set .*gone\.en: there is no such file"):
        opened(f"{tmp_path}/a.de,{tmp_path}/gone.en")


def test_several_references_are_scored_as_sacrebleu_does_and_recorded(tmp_path):
    hypotheses = ["the red door is open", "my brother reads a book now"]
    references, others = TEXT["en"], [("the door is open",), ("my brother reads a book", "he reads")]
    cell = score(DE_EN, TEXT["de"], hypotheses, references, others)
    streams = [references, ["the door is open", "my brother reads a book"], [None, "he reads"]]
    assert cell.bleu == pytest.approx(sacrebleu.corpus_bleu(hypotheses, streams).score)
    assert cell.chrf == pytest.approx(sacrebleu.corpus_chrf(hypotheses, streams, word_order=2).score)
    assert cell.references == 3
    assert cell.bleu_signature.startswith("nrefs:var|")
    assert cell.chrf_signature.startswith("nrefs:var|")
    assert score(DE_EN, TEXT["de"], hypotheses, references).bleu_signature.startswith("nrefs:1|")
    files = {"t.de": TEXT["de"], "t.en.ref0": TEXT["en"], "t.en.ref1": ["A\u00adred door", "He reads"]}
    fake = FakeTranslator(recipe=RECIPE)
    matrix = evaluate(fake, tmp_path / "run", split=opened(write(tmp_path / "set", files)))
    stored = json.loads((matrix.folder / "de-en.json").read_text())
    assert (stored["references"], stored["bleu_signature"][:8]) == (2, "nrefs:2|")
    # Both references are brought to the form of the hypotheses.
    expected = [Pair(d, e, (o,)) for d, e, o in zip(TEXT["de"], TEXT["en"], ["Ared door", "He reads"], strict=True)]
    assert stored["test_set"] == content_hash(expected)
    samples = read_samples(matrix.folder, opened(tmp_path / "set"), DE_EN, 1)
    assert samples[0][1:3] == (TEXT["de"][1], TEXT["en"][1])
    again = FakeTranslator(recipe=RECIPE)
    assert evaluate(again, tmp_path / "run", split=opened(tmp_path / "set")).results[0].reused
    write(tmp_path / "set", {"t.en.ref1": ["Another", "He reads"]})
    assert not evaluate(again, tmp_path / "run", split=opened(tmp_path / "set")).results[0].reused


def test_the_hash_of_pairs_with_one_reference_is_what_it_was():
    assert content_hash([Pair("a", "b")]) == hashlib.sha256(b'["a", "b"]\n').hexdigest()
    assert content_hash([Pair("a", "b", ("c",))]) != content_hash([Pair("a", "b")])


# WMT


def sgm(kind: str, attributes: str, documents: dict[str, list[str]], sysid: str = "") -> str:
    body = "".join(
        f'<doc {sysid}docid="{name}"><p>\n'
        + "".join(f'<seg id="{n}">{t}</seg>\n' for n, t in enumerate(texts, 1))
        + "</p></doc>"
        for name, texts in documents.items()
    )
    return f'<{kind} setid="toy" {attributes}>\n{body}</{kind}>\n'


def test_sgm_of_wmt_by_names_and_attributes(tmp_path):
    files = {
        "newstest2014-deen-src.de.sgm": sgm("srcset", 'srclang="any"', {"a": TEXT["de"], "b": ["R&D"]}),
        "newstest2014-deen-ref.en.sgm.gz": gzip.compress(
            sgm("refset", 'srclang="any" trglang="en"', {"b": ["R&amp;D"], "a": TEXT["en"]}, 'sysid="ref" ').encode()
        ),
        "newstest2014-fren-src.fr.sgm": sgm("srcset", 'srclang="any"', {"c": TEXT["fr"]}),
        "newstest2014-fren-ref.en.sgm": sgm("refset", 'srclang="any" trglang="en"', {"c": TEXT["en"]}),
        "README": "about these files",
    }
    found = opened(write(tmp_path, files))
    assert directions(found) == {"de-en", "fr-en"}
    assert found.read(DE_EN) == [*map(Pair, TEXT["de"], TEXT["en"]), Pair("R&D", "R&D")]
    listed = opened(f"{tmp_path}/newstest2014-deen-src.de.sgm,{tmp_path}/newstest2014-deen-ref.en.sgm.gz")
    assert listed.read(DE_EN) == found.read(DE_EN)
    with pytest.raises(UserError, match="no source with a reference: give its other file as well"):
        opened(tmp_path / "newstest2014-deen-src.de.sgm")


def test_sgm_with_several_references_in_one_file_and_in_two(tmp_path):
    two = sgm("refset", 'trglang="en"', {"a": ["A1", "A2"]}, 'sysid="A" ') + sgm(
        "refset", 'trglang="en"', {"a": ["B1"]}, 'sysid="B" '
    )
    files = {
        "x-src.de.sgm": sgm("srcset", 'srclang="de"', {"a": TEXT["de"]}),
        "x-ref.en.sgm": two,
        "y-ref.en.sgm": sgm("refset", 'trglang="English"', {"a": ["C1", "C2"]}),
    }
    write(tmp_path, files)
    assert opened(f"{tmp_path}/x-*").read(DE_EN) == [Pair(TEXT["de"][0], "A1", ("B1",)), Pair(TEXT["de"][1], "A2")]
    listed = opened(",".join(f"{tmp_path}/{name}" for name in files))
    assert listed.read(DE_EN) == [Pair(TEXT["de"][0], "A1", ("B1", "C1")), Pair(TEXT["de"][1], "A2", ("C2",))]


def test_xml_of_wmt_with_documents_that_have_no_reference(tmp_path):
    def doc(name: str, *parts: str) -> str:
        return f'<doc id="{name}" origlang="en">{"".join(parts)}</doc>'

    def side(tag: str, attributes: str, *texts: str) -> str:
        segments = "".join(f'<seg id="{n}">{text}</seg>' for n, text in enumerate(texts, 1))
        return f"<{tag} {attributes}><p>{segments}</p></{tag}>"

    src = side("src", 'lang="en"', *TEXT["en"])
    content = (
        '<?xml version="1.0" encoding="utf-8"?>\n<dataset id="wmttest2022"><collection id="general">'
        + doc(
            "a",
            src,
            side("ref", 'lang="de" translator="A"', *TEXT["de"]),
            side("ref", 'lang="de" translator="B"', "B1", ""),
        )
        + doc("b", src, side("hyp", 'lang="de" system="online"', "x", "y"))
        + "</collection></dataset>"
    )
    path = write(tmp_path, {"wmttest2022.en-de.xml": content}) / "wmttest2022.en-de.xml"
    for found in (opened(path), opened(tmp_path)):
        assert directions(found) == {"en-de"}
        assert found.read(EN_DE) == [
            Pair(TEXT["en"][0], TEXT["de"][0], ("B1",)),
            Pair(TEXT["en"][1], TEXT["de"][1]),
        ]
        assert found.notes == (
            f"left out: {path}: 2 segments of en-de without source or reference, first 1 of general/b",
        )
    path.write_text(content.replace('lang="de"', 'lang="qqq"'))
    with pytest.raises(UserError, match=r"cannot read .*xml: the language 'qqq' of document 'general/a' is unknown"):
        opened(f"{tmp_path}/wmt*")
    path.write_text(content[:-20])
    with pytest.raises(UserError, match=r"cannot read .*xml: it is no well-formed XML"):
        opened(f"{tmp_path}//wmttest2022.en-de.xml")


# TICO-19


def test_tico_has_its_languages_in_its_lines(tmp_path):
    heading = "sourceLang\ttargetLang\tsourceString\ttargetString\tstringID\turl\tlicense\ttranslatorId\n"
    lines = "".join(
        f"en\tpt-BR\t{e}\t{d}\t{n}\thttp://x\tCC0\tt\n"
        for n, (e, d) in enumerate(zip(TEXT["en"], TEXT["de"], strict=True))
    )
    unknown = heading + "en\tqqq\tone\ttwo\t1\tu\tl\tt\n"
    found = opened(write(tmp_path, {"test.en-pt-BR.tsv": heading + lines, "test.en-qqq.tsv": unknown}))
    assert directions(found) == {"en-pt-BR", "pt-BR-en"}
    assert found.read(Direction("en", "pt-BR")) == list(map(Pair, TEXT["en"], TEXT["de"]))
    assert found.read(Direction("pt-BR", "en")) == list(map(Pair, TEXT["de"], TEXT["en"]))
    assert found.notes == (f"left out: {tmp_path}/test.en-qqq.tsv, of an unknown language ('qqq')",)
    assert directions(opened(tmp_path / "test.en-pt-BR.tsv")) == {"en-pt-BR", "pt-BR-en"}
    write(tmp_path, {"test.en-pt-BR.tsv": heading + lines + "en\tam\tone\ttwo\t3\n"})
    with pytest.raises(UserError, match=r"pt-BR\.tsv:4: another direction than on line 2: make a file of each"):
        opened(tmp_path).read(Direction("en", "pt-BR"))
    write(tmp_path, {"test.en-pt-BR.tsv": heading + lines + "en\tpt-BR\tone\t \t3\n"})
    with pytest.raises(UserError, match=r"pt-BR\.tsv:4: expected sourceString and targetString, neither of them blank"):
        opened(tmp_path).read(Direction("en", "pt-BR"))


def test_files_of_directions_are_read_as_before_compressed_or_not(tmp_path):
    files = {
        "de-en.tsv.gz": gzip.compress(b"eins\tone\n"),
        "en-de.jsonl": '{"source": "one", "target": "eins"}',
        "README.md": "x",
    }
    found = opened(write(tmp_path, files))
    assert (found.read(DE_EN), found.read(EN_DE)) == ([Pair("eins", "one")], [Pair("one", "eins")])
    assert found.notes == ()
