"""Datasets of mtdata, without a network: a program in its place, with the interface of mtdata 0.5.1."""

import sys
from pathlib import Path

import pytest
from test_obtain import calls, install
from toy_corpus import write_spec

from nmt.config import CleanConfig
from nmt.corpora import load_pairs, load_spec, open_corpora, open_corpus
from nmt.corpora.obtain import mtdata
from nmt.errors import UserError
from nmt.languages import Direction

NEWS, TEST, MONO = "Statmt-news_crawl-16-deu-eng", "Statmt-newstest-2019-deu-eng", "Leipzig-news-2020-por_BR"
# What the real one does: rows on standard output, all else on standard error, tracebacks for failures.
PROGRAM = f"""
if "--version" in sys.argv:
    print("mtdata 0.5.1 /somewhere")
    sys.exit()
print("Loading index from cache", os.environ["MTDATA"], file=sys.stderr)
name = sys.argv[-1]
if name == {NEWS!r}:
    print("Der Alarm ging gerade los\\tThe alarm was set off")
    print("Bitte den Code eingeben\\tPlease enter the code of it\\t{{'meta': 1}}")
elif name == {TEST!r}:
    print("Die Brücke ist noch rot\\tThe bridge is still red")
elif name == {MONO!r}:
    print("o alarme foi ativado agora")
elif "empty" in name:
    pass
elif "offline" in name:
    print("half a line", end="")
    print("Traceback (most recent call last):\\n  File x", file=sys.stderr)
    sys.exit("requests.exceptions.ConnectionError: HTTPConnectionPool(host='data.org', port=80): Max retries")
elif "odd" in name:
    sys.exit("Traceback\\nValueError: something odd")
else:
    print("Traceback\\n    assert did in INDEX\\nAssertionError", file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(mtdata.sys, "executable", str(tmp_path / "python"))
    monkeypatch.delenv("MTDATA", raising=False)


def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    install(tmp_path, "mtdata", PROGRAM)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(mtdata.sys, "executable", str(tmp_path / "python"))


def corpus(tmp_path: Path, *datasets: str, name: str = "news", **more: object) -> str:
    split = {} if "monolingual" in more else {"split": {"by": "name", "test": ["*newstest*"]}}
    values = {"name": name, "licence": "CC0-1.0", "obtain": {"mtdata": [*datasets]}, **split, **more}
    return write_spec(tmp_path, values, f"{name}.yaml")


def test_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path, monkeypatch)
    path = corpus(tmp_path, NEWS, TEST)
    de_en = Direction("de", "en")
    found = load_pairs([path], [de_en, Direction("en", "de")], CleanConfig()).pairs[de_en]
    assert list(found["train"]) == [
        ("Der Alarm ging gerade los", "The alarm was set off"),
        ("Bitte den Code eingeben", "Please enter the code of it"),
    ]
    assert list(found["test"]) == [("Die Brücke ist noch rot", "The bridge is still red")]
    assert sorted(calls(tmp_path)) == sorted(
        [*2 * ["mtdata --version"], *(f"mtdata -no-pb -ll WARNING echo {one}" for one in (NEWS, TEST))]
    )
    with open_corpus(path) as source:
        one = source.provenance[0]
        assert (one.source, one.version, len(one.sha256)) == (f"mtdata {NEWS}", "0.5.1", 64)
    assert len(calls(tmp_path)) == 4  # all from the cache


def test_another_dataset_is_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path, monkeypatch)
    open_corpus(corpus(tmp_path, NEWS)).close()
    open_corpus(corpus(tmp_path, NEWS, TEST)).close()
    assert [call.split()[-1] for call in calls(tmp_path) if "echo" in call] == [NEWS, TEST]


def test_text_of_one_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client(tmp_path, monkeypatch)
    with open_corpus(corpus(tmp_path, MONO, monolingual=True)) as source:
        assert source.languages == ["pt-BR"]
        assert [row.text for row in source.rows(["pt-BR"])] == ["o alarme foi ativado agora"]


def test_what_fails_is_said_in_one_line_and_leaves_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for dataset, message in {
        "G-offline-1-deu-eng": "cannot fetch G-offline-1-deu-eng of corpus bad: data.org cannot be reached; check the",
        "G-odd-1-deu-eng": "cannot fetch G-odd-1-deu-eng of corpus bad: mtdata: ValueError: something odd$",
        "G-none-1-deu-eng": "G-none-1-deu-eng of corpus bad: mtdata does not know it",
        "G-empty-1-deu-eng": "corpus bad: mtdata gave no text of G-empty-1-deu-eng",
    }.items():
        client(tmp_path, monkeypatch)
        bad = corpus(tmp_path, dataset, name="bad")
        with pytest.raises(UserError, match=message):
            open_corpus(bad)
        mixture = write_spec(tmp_path, {"name": "both", "mixture": [bad, corpus(tmp_path, NEWS)]}, "both.yaml")
        with open_corpora([mixture]) as corpora:
            assert [source.spec.name for source in corpora.sources] == ["news"]
            assert corpora.failures.keys() == {"bad"}
    assert not list((tmp_path / "cache" / "corpora" / "bad").iterdir())


def test_the_program_is_that_of_the_environment_or_a_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"corpus news is fetched with mtdata, which is not installed: pip install '"):
        open_corpus(corpus(tmp_path, NEWS))
    client(tmp_path, monkeypatch)
    assert mtdata.find_mtdata("x") == str(tmp_path / "bin" / "mtdata")
    beside = tmp_path / "mtdata"
    beside.write_text("#!/bin/sh\n")
    beside.chmod(0o755)
    assert mtdata.find_mtdata("x") == str(beside)
    assert sys.executable == str(tmp_path / "python")


@pytest.mark.parametrize(
    ("datasets", "more", "message"),
    [
        ((MONO,), {}, "obtain.mtdata: Leipzig-news-2020-por_BR is of one language: say monolingual: true"),
        ((NEWS,), {"monolingual": True}, f"obtain.mtdata: {NEWS} is of two languages"),
        (("news",), {}, r"obtain\.mtdata\.datasets\.0: String should match pattern"),
        ((), {}, r"obtain\.mtdata\.datasets: Tuple should have at least 1 item"),
    ],
)
def test_a_mistake_in_a_declaration(
    tmp_path: Path, datasets: tuple[str, ...], more: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_spec(corpus(tmp_path, *datasets, **more))
