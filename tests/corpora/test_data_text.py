"""nmt-data stats, preview and export, and the cache of cleaned corpora behind them."""

import errno
import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import WHEEL, make_wheel, values_of, write_spec

from nmt.cli import data as command
from nmt.cli.data_text import REASONS
from nmt.cli.data_text import SAMPLES as KEPT
from nmt.config import CleanConfig
from nmt.corpora import load_pairs
from nmt.corpora.clean import Reason
from nmt.corpora.cleaned import load
from nmt.corpora.cleaned.corpus import Corpus
from nmt.corpora.cleaned.sieve import SAMPLES
from nmt.errors import UserError
from nmt.languages import Direction

DE_EN = Direction("de", "en")


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The path of the declaration of the toy corpus, in a cache of its own."""
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    return write_spec(tmp_path, values_of(make_wheel(tmp_path / "cache" / "corpora" / "toy" / WHEEL)))


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[int, str, str]:
    """Return the status, output and messages of nmt-data."""
    monkeypatch.setattr(sys, "argv", ["nmt-data", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    output = capsys.readouterr()
    return int(ended.value.code or 0), output.out, output.err


@pytest.fixture
def data(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda *arguments: run(capsys, monkeypatch, *arguments)


def test_stats_as_json_and_as_a_table(toy: str, data: Any) -> None:
    status, out, _ = data("stats", toy, "--json")
    values = json.loads(out)
    assert (status, list(values["directions"])) == (0, ["de-en", "es-en"])
    entry = values["directions"]["de-en"]
    assert entry["read"] == 5 == entry["rejected"]["duplicate"] + sum(one["pairs"] for one in entry["splits"].values())
    assert entry["splits"]["dev"] == {
        "pairs": 2, "source_words": 8, "target_words": 10, "source_characters": 49, "target_characters": 41
    }  # fmt: skip
    assert values["total"]["read"] == 6
    assert values["sources"][0]["licence"] == "CC0-1.0"
    _, out, _ = data("stats", toy, "--directions", "en-de,es-en", "--clean", "min_words=6")
    assert all(name in out for name in ("en-de", "es-en", "2 directions", "too_short"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stats", "toyy.yaml"], "no corpus file toyy.yaml"),
        (["stats", "TOY", "--directions", "de-xx"], "unknown language 'xx'"),
        (["stats", "TOY", "--clean", "min_word=3"], "unknown key data.clean.min_word; did you mean"),
        (["stats", "TOY", "--clean", "min_words=many"], "--clean min_words=many: Input should be a valid integer"),
        (["stats", "TOY", "--clean", "decontaminate=gone.txt"], "data.clean.decontaminate: cannot read gone.txt"),
        (["preview", "TOY", "--pair", "de-en", "--rejected", "copies"], "reasons that occur: duplicate"),
        (["preview", "TOY", "--rejected", "copy"], "was rejected as 'copy'"),
        (["export", "TOY", "--pair", "fr-en", "--out", "x"], "no text for the direction fr-en"),
        (["export", "TOY", "--pair", "de-en", "--out", "TOY"], "cannot write to"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(toy: str, data: Any, arguments: list[str], message: str) -> None:
    status, _, err = data(*(toy if one == "TOY" else one for one in arguments))
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_preview_shows_kept_and_rejected_pairs(toy: str, data: Any) -> None:
    _, out, _ = data("preview", toy, "-n", "1")
    assert "de-en" in out
    assert "Drücke die Taste auf der Bridge" in out
    _, out, _ = data("preview", toy, "--pair", "de-en", "--rejected", "duplicate")
    assert "'Der Alarm ging los'" in out
    assert "Bridge" not in out


def test_export_in_every_form(toy: str, data: Any, tmp_path: Path) -> None:
    pairs = list(load_pairs([toy], [DE_EN], CleanConfig()).pairs[DE_EN]["train"])
    assert len(pairs) == 2
    for form in ("moses", "tsv", "jsonl"):
        status, out, _ = data("export", toy, "--pair", "de-en", "--out", str(tmp_path / form), "--format", form)
        assert (status, out.startswith("2 pairs in ")) == (0, True)
    german, english = ((tmp_path / "moses" / f"train.de-en.{code}").read_text() for code in ("de", "en"))
    assert list(zip(german.splitlines(), english.splitlines(), strict=True)) == pairs
    assert (tmp_path / "tsv" / "train.de-en.tsv").read_text() == "".join(f"{a}\t{b}\n" for a, b in pairs)
    lines = (tmp_path / "jsonl" / "train.de-en.jsonl").read_text().splitlines()
    assert [(row["source"], row["target"]) for row in map(json.loads, lines)] == pairs
    for _ in "ab":
        data("export", toy, "--pair", "de-en", "--out", str(tmp_path), "--format", "tsv", "--gz", "--split", "dev")
        packed = (tmp_path / "dev.de-en.tsv.gz").read_bytes()
    assert gzip.decompress(packed).decode().count("\n") == 2


def test_what_was_cleaned_is_not_cleaned_again(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_pairs([toy], [DE_EN], CleanConfig())
    monkeypatch.setattr(load, "build", lambda *_: pytest.fail("cleaned again"))
    second = load_pairs([toy], [DE_EN], CleanConfig())
    for name in ("pairs", "rejections", "samples", "sizes", "rows", "provenance", "unreadable", "digest"):
        assert getattr(first, name) == getattr(second, name)
    assert first.samples[DE_EN] == {Reason.DUPLICATE: [("Der Alarm ging los", "The alarm was set off")]}


def test_a_full_disk_is_one_line_and_leaves_nothing(toy: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("nmt.corpora.cleaned.spill.Appender.flush", full)
    with pytest.raises(UserError, match=r"no room in .*cleaned for cleaned text \(\d+ MB are free\); make room"):
        load_pairs([toy], [DE_EN], CleanConfig())
    assert [path.suffix for path in (tmp_path / "cache" / "cleaned").iterdir()] == [".lock"]


def test_a_killed_process_leaves_nothing_that_counts(toy: str, tmp_path: Path) -> None:
    """A process killed at its last step, before it wrote corpus.json; and the leftovers of another version."""
    code = (
        "import sys, time; from nmt.config import CleanConfig; from nmt.corpora import Corpus, load_pairs;"
        "from nmt.languages import Direction;"
        "Corpus.save = lambda self: (print('now', flush=True), time.sleep(99));"
        "load_pairs([sys.argv[1]], [Direction('de', 'en')], CleanConfig())"
    )
    process = subprocess.Popen([sys.executable, "-c", code, toy], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    cleaned = tmp_path / "cache" / "cleaned"
    (unfinished,) = cleaned.glob("*.unfinished")
    folder = unfinished.with_suffix("")
    assert Corpus.load(unfinished) is None
    folder.mkdir()
    (folder / "corpus.json").write_text('{"format": 0}')
    corpus = load_pairs([toy], [DE_EN], CleanConfig())
    assert len(corpus.pairs[DE_EN]["train"]) == 2
    assert not unfinished.exists()


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(
        "import os, sys, time\n"
        "sys.path[:0] = sys.argv[1:]\n"
        "from nmt.corpora.parallel import map_in_order\n"
        "def make():\n"
        "    return lambda item: (item < 8 or time.sleep(60), os.getpid())[1]\n"
        "def items():\n"
        "    yield from range(8)\n"
        "    print('started', flush=True)\n"
        "    yield from range(8, 20)\n"
        "if __name__ == '__main__':\n"
        "    list(map_in_order(make, (), items(), 2))\n"
    )
    process = subprocess.Popen([sys.executable, str(tmp_path / "work.py")], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    children: list[str] = []
    for _ in range(300):
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        if len(children) >= 3:  # two workers and what tracks resources
            break
        time.sleep(0.1)
    time.sleep(1)  # for them to begin
    process.kill()
    process.wait()
    for _ in range(100):
        if not any(_alive(int(child)) for child in children):
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its parent")


def _alive(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_what_could_not_be_read_is_told(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    lines = [b"eins zwei drei vier\tone two three four\n", b"zu kurz\n", b"\xff\n", b"\xfe\n"]
    (tmp_path / "pairs.tsv").write_bytes(b"".join(lines))
    values = {
        "name": "pairs",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path)},
        "read": {"kind": "tsv", "files": "pairs.tsv", "columns": {"de": 0, "en": 1}},
        "split": {"by": "text", "test": 0, "dev": 0},
    }
    path = write_spec(tmp_path, values, "pairs.yaml")
    _, out, err = data("fetch", path)
    assert "warning: left out of pairs: line that is not UTF-8, first at pairs.tsv:3 (2 times)\n" in err
    assert "warning: left out of pairs: line with too few columns, first at pairs.tsv:2 (1 times)\n" in err
    for _ in "again":
        _, out, err = data("stats", path)
        assert "1 direction " in out
        assert "warning: left out of pairs: line that is not UTF-8, first at pairs.tsv:3 (2 times)\n" in err
    _, out, _ = data("stats", path, "--json")
    assert json.loads(out)["skipped"] == {
        "pairs: line that is not UTF-8, first at pairs.tsv:3": 2,
        "pairs: line with too few columns, first at pairs.tsv:2": 1,
    }


def test_monolingual_text_is_shown_and_exported(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "news.de.txt").write_text("eins zwei drei vier\nfünf sechs sieben acht\nzu kurz\n")
    values = {
        "name": "news",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path)},
        "read": {"kind": "text", "files": "news.{language}.txt"},
        "monolingual": True,
    }
    path = write_spec(tmp_path, values, "news.yaml")
    status, out, _ = data("stats", path, "--json")
    entry = json.loads(out)["directions"]["de-de"]
    assert (status, entry["read"], entry["rejected"]) == (0, 3, {"too_short": 1})
    assert entry["splits"]["train"] == {
        "pairs": 2, "source_words": 8, "target_words": 0, "source_characters": 41, "target_characters": 0
    }  # fmt: skip
    assert data("preview", path)[1] == "de-de\n  eins zwei drei vier\n\n  fünf sechs sieben acht\n\n"
    assert "  'zu kurz'\n" in data("preview", path, "--pair", "de-de", "--rejected", "too_short")[1]
    contents = {"moses": "eins zwei drei vier\n", "tsv": "eins zwei drei vier\n"}
    for form, name in (("moses", "train.de-de.de"), ("tsv", "train.de-de.tsv"), ("jsonl", "train.de-de.jsonl")):
        _, out, _ = data("export", path, "--pair", "de-de", "--out", str(tmp_path / "out"), "--format", form)
        assert out.startswith("2 texts in ")
        first = (tmp_path / "out" / name).read_text().splitlines(keepends=True)[0]
        assert first == contents.get(form, '{"text": "eins zwei drei vier"}\n')


def declare(tmp_path: Path, files: dict[str, str], pattern: str = "{component}.{language}") -> str:
    """Write text of a person's own and its declaration; return its path."""
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    values = {
        "name": "mine",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(folder)},
        "read": {"kind": "parallel_text", "files": pattern},
        "split": {"by": "name", "test": ["test"]},
    }
    return write_spec(tmp_path, values, "mine.yaml")


GERMAN, ENGLISH = "eins zwei drei vier\nfünf sechs sieben acht\n", "one two three four\nfive six seven eight\n"


def test_a_person_s_own_files_are_shown_as_what_was_obtained(toy: str, data: Any, tmp_path: Path) -> None:
    path = declare(tmp_path, {"test.de": GERMAN, "test.en": ENGLISH, "test.qqx": ENGLISH})
    _, out, err = data("fetch", path)
    assert out.splitlines()[1].split()[:8] == ["mine", "CC0-1.0", "3", "1", "1", "+", "en", "2"]
    warning = "warning: left out of mine: 1 unknown language (qqx); `languages` in its declaration can say which"
    assert err.count(warning) == 1
    for _ in "again":
        assert data("stats", path)[2].count(warning) == 1
    assert json.loads(data("stats", path, "--json")[1])["unregistered"] == {"mine": ["qqx"]}


def test_without_a_pair_every_command_says_so(toy: str, data: Any, tmp_path: Path) -> None:
    path = declare(tmp_path, {"test.de": "\n", "test.en": "\n"})
    status, out, err = data("fetch", path)
    assert (status, "mine" in out) == (2, True)
    assert "nmt-data: error: corpus mine has no text that could be read" in err
    commands = {
        ("stats", path): path,
        ("preview", path): path,
        ("preview", path, "--pair", "de-en"): "de-en",
        ("export", path, "--pair", "de-en", "--out", str(tmp_path / "out")): "de-en",
    }
    for arguments, what in commands.items():
        status, out, err = data(*arguments)
        assert (status, err) == (2, f"nmt-data: error: no pair of {what} is kept: 1 empty\n")
        assert ("de-en" in out) == (arguments[0] == "stats")
    assert not (tmp_path / "out").exists()
    declare(tmp_path, {"test.de": "", "test.en": ""})
    for arguments in (("fetch", path), *commands):
        status, _, err = data(*arguments)
        message = "nmt-data: error: corpus mine: no pair could be read: empty file, first at test.en"
        assert (status, err.splitlines()[-1]) == (2, message)


def test_an_empty_split_names_those_that_are_not(toy: str, data: Any, tmp_path: Path) -> None:
    path = declare(tmp_path, {"test.de": GERMAN, "test.en": ENGLISH})
    status, _, err = data("export", path, "--pair", "de-en", "--out", str(tmp_path / "out"))
    message = "no pair of de-en is in the train split; there are 2 pairs (--split test)"
    assert (status, err) == (2, f"nmt-data: error: {message}\n")
    assert not (tmp_path / "out").exists()


def test_a_damaged_part_of_a_mixture_leaves_the_others_to_all_commands(toy: str, data: Any, tmp_path: Path) -> None:
    damaged = declare(tmp_path, {"train.fr": GERMAN, "train.en": ENGLISH.splitlines()[0]})
    values = {
        "name": "gone",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path / "gone")},
        "read": {"kind": "parallel_text", "files": "{component}.{language}"},
        "split": {"by": "name"},
    }
    gone = write_spec(tmp_path, values, "gone.yaml")
    path = write_spec(tmp_path, {"name": "both", "mixture": [toy, damaged, gone]}, "both.yaml")
    for arguments in (
        ["stats", path],
        ["preview", path],
        ["export", path, "--pair", "de-en", "--out", str(tmp_path / "out")],
    ):
        status, out, err = data(*arguments)
        assert (status, "de-en" in out) == (0, True)
        assert err.count("warning: left out: corpus mine: files of parallel text have unequal") == 1
        assert err.count("warning: left out: corpus gone: there is no file like") == 1
        assert err.count("\n") == 2
    assert data("fetch", path)[0] == 1


def test_a_place_that_cannot_be_written_is_one_line(toy: str, data: Any) -> None:
    status, _, err = data("export", toy, "--pair", "de-en", "--out", "/proc/nowhere")
    assert (status, err) == (2, "nmt-data: error: cannot write to /proc/nowhere: No such file or directory\n")


def test_a_terminal_sees_what_is_written(toy: str, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    _, _, err = data("export", toy, "--pair", "de-en", "--out", str(tmp_path / "out"))
    assert "writing de-en" in err
    assert "2/2" in err


def test_help_has_the_reasons_and_says_where_the_keys_are(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (list(REASONS), KEPT) == (list(Reason), SAMPLES)
    monkeypatch.setenv("COLUMNS", "1000")
    _, out, _ = data("preview", "--help")
    assert f"{', '.join(Reason)}. Up to {SAMPLES} of each direction are kept." in " ".join(out.split())
    assert "docs/configuration.md#dataclean" in out


def test_more_rejected_pairs_than_are_kept(toy: str, data: Any) -> None:
    for count, note in (("20", ""), ("21", "nmt-data: note: of each direction and reason 20 rejected pairs are kept")):
        _, _, err = data("preview", toy, "--pair", "de-en", "--rejected", "duplicate", "-n", count)
        assert err.startswith(note)
        assert bool(err) == bool(note)


def test_the_bare_command_prints_its_help(data: Any) -> None:
    status, out, err = data()
    assert (status, err) == (0, "")
    assert out.startswith("Usage: ")
    assert all(f"\n  {name} " in out for name in ("list", "fetch", "stats", "preview", "export"))
