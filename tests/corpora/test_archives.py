"""A person's own archives: patterns reach into them, names are only names, and damage is one clear line."""

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import make_parquet, open_files, texts, write_spec

from nmt.corpora.declare.patterns import split_archive
from nmt.corpora.declare.spec import load_spec
from nmt.corpora.obtain.identity import corpus_identity
from nmt.errors import UserError

MEMBERS = {
    "README": b"words about the corpus\n",
    "toy.de-en.de": b"eins\nzwei\n",
    "toy.de-en.en": b"one\ntwo\n",
}
READ = {"kind": "parallel_text", "files": "{source}-{target}.txt.zip/*.{language}"}
PAIRS = [("one", {"de": "eins"}), ("two", {"de": "zwei"})]


def make_zip(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_bytes(members: Mapping[str, bytes], links: Mapping[str, tuple[bytes, str]] = {}) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, (kind, target) in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            archive.addfile(info)
    return buffer.getvalue()


def zstd(content: bytes) -> bytes:
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(content))


@pytest.mark.parametrize(
    "pattern",
    [
        "{source}-{target}.txt.zip/*.{language}",
        "*/{source}-{target}.txt.zip/*.{language}",
        "{component}/de-en.txt.zip/toy.de-en.{language}",
        "**/*.zip/**/*.{language}",
    ],
)
def test_patterns_reach_into_archives(tmp_path: Path, pattern: str) -> None:
    make_zip(tmp_path / ("v1" if pattern[0] != "{" or "component" in pattern else "") / "de-en.txt.zip", MEMBERS)
    assert texts(open_files(tmp_path, READ | {"files": pattern}, {})) == PAIRS


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.tar", bytes), ("x.tar.gz", gzip.compress), ("x.tgz", gzip.compress), ("x.TGZ", gzip.compress),
        ("x.tar.bz2", bz2.compress), ("x.tbz2", bz2.compress), ("x.tbz", bz2.compress),
        ("x.tar.xz", lzma.compress), ("x.txz", lzma.compress), ("x.tar.zst", zstd), ("x.tzst", zstd),
    ],
)  # fmt: skip
def test_every_kind_of_tar_is_read(tmp_path: Path, name: str, pack: Any) -> None:
    members = {
        "./de-en/train.de": b"eins\nzwei\n",
        "./de-en/train.en": b"one\ntwo\n",
        "./de-en/._train.de": b"\0\5\x16",
    }
    (tmp_path / name).write_bytes(pack(tar_bytes(members)))
    read = {"kind": "parallel_text", "files": f"{name}/{{source}}-{{target}}/*.{{language}}"}
    before = set(Path(tempfile.gettempdir()).glob("nmt-*"))
    reader = open_files(tmp_path, read, {})
    assert texts(reader) == PAIRS
    assert not reader.unregistered
    assert set(Path(tempfile.gettempdir()).glob("nmt-*")) <= before


def test_members_may_be_compressed_or_be_read_at_any_place(tmp_path: Path) -> None:
    make_parquet(tmp_path / "rows.parquet", {"en": ["one", "two"], "de": ["eins", "zwei"]})
    content = (tmp_path / "rows.parquet").read_bytes()
    lines = b'{"en": "one", "de": "eins"}\n{"en": "two", "de": "zwei"}\n'
    for name, archive in {"x.zip": make_zip, "x.tar": lambda p, m: p.write_bytes(tar_bytes(m))}.items():
        archive(tmp_path / name, {"a/rows.parquet": content, "a/rows.jsonl.gz": gzip.compress(lines)})
        assert texts(open_files(tmp_path, {"kind": "parquet", "files": f"{name}/a/*.parquet"}, {})) == PAIRS
        assert texts(open_files(tmp_path, {"kind": "jsonl", "files": f"{name}/**/*.jsonl.gz"}, {})) == PAIRS
    sqlite = {"kind": "json_tables", "files": "t.zip/{component}/{language}.json", "key_language": "en"}
    make_zip(tmp_path / "t.zip", {"c/en.json": b'{"k": "one"}', "c/de.json": b'{"k": "eins"}'})
    assert texts(open_files(tmp_path, sqlite, {})) == PAIRS[:1]


def test_names_of_members_reach_nothing_outside(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    members = {"../up.de": b"eins\n", "../up.en": b"one\n", "/etc/abs.de": b"zwei\n", "/etc/abs.en": b"two\n"}
    make_zip(folder / "x.zip", members)
    (folder / "x.tar").write_bytes(tar_bytes(members))
    for name in ("x.zip", "x.tar"):
        read = {"kind": "parallel_text", "files": f"{name}/**/*.{{language}}"}
        assert sorted(texts(open_files(folder, read, {}))) == PAIRS
    assert {path.name for path in tmp_path.rglob("*")} == {"corpus", "x.zip", "x.tar", "toy.yaml"}


def test_links_of_a_tar_lead_to_members_only(tmp_path: Path) -> None:
    (tmp_path / "secret.en").write_text("secret\n")
    links = {
        "b/t.de": (tarfile.LNKTYPE, "a/t.de"),
        "b/t.en": (tarfile.SYMTYPE, "../a/t.en"),
        "c/t.de": (tarfile.SYMTYPE, "../gone.de"),
        "c/t.en": (tarfile.SYMTYPE, str(tmp_path / "secret.en")),
        "d/t.de": (tarfile.SYMTYPE, "t.de"),
    }
    (tmp_path / "x.tar").write_bytes(tar_bytes({"a/t.de": b"eins\n", "a/t.en": b"one\n"}, links))
    read = {"kind": "parallel_text", "files": "x.tar/{component}/t.{language}"}
    with open_files(tmp_path, read, {}, split={"by": "component", "test": 0, "dev": 0}) as reader:
        assert [(row.component, row.text) for row in reader.rows({"de"})] == [("a", "one"), ("b", "one")]


def test_what_macos_adds_is_no_file_of_the_corpus(tmp_path: Path) -> None:
    make_zip(tmp_path / "de-en.txt.zip", MEMBERS | {"__MACOSX/._toy.de-en.de": b"\0", "._toy.de-en.de": b"\0"})
    reader = open_files(tmp_path, READ | {"files": "{source}-{target}.txt.zip/**/*.{language}"}, {})
    assert texts(reader) == PAIRS


def test_identity_is_that_of_the_archive(tmp_path: Path) -> None:
    values = {
        "name": "toy",
        "licence": "CC0-1.0",
        "obtain": {"kind": "files", "folder": str(tmp_path)},
        "read": READ,
        "split": {"by": "text", "test": 0, "dev": 0},
    }
    make_zip(tmp_path / "de-en.txt.zip", MEMBERS)
    spec = load_spec(write_spec(tmp_path, values))
    before = corpus_identity(spec)
    assert [name for name, _, _ in before["found"]] == ["de-en.txt.zip"]
    make_zip(tmp_path / "de-en.txt.zip", MEMBERS | {"toy.de-en.de": b"EINS\nzwei\n"})
    assert corpus_identity(spec) != before
    with open_files(tmp_path, READ, {}) as reader:
        assert [one.source for one in reader.provenance] == ["de-en.txt.zip"]


def encrypted(path: Path) -> None:
    """Mark all members as encrypted, as a reader sees it: in their flags."""
    make_zip(path, MEMBERS)
    content = path.read_bytes()
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(signature)
        while place >= 0:
            content = content[: place + at] + b"\x01\x00" + content[place + at + 2 :]
            place = content.find(signature, place + 4)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "spoil", "message"),
    [
        ("de-en.txt.zip", encrypted, "it is encrypted: unpack the archive with its password first"),
        ("de-en.txt.zip", lambda path: path.write_bytes(b"<html>404</html>"), "File is not a zip file"),
        ("de-en.txt.zip", lambda path: path.write_bytes(b""), "File is not a zip file"),
        ("de-en.txt.zip", lambda path: path.write_bytes(make_zip(path, MEMBERS).read_bytes()[:-30]), "not a zip file"),
        ("de-en.tar.gz", lambda path: path.write_bytes(b"<html>404</html>"), "Not a gzipped file"),
        ("de-en.tar.gz", lambda path: path.write_bytes(b""), "empty file"),
        ("de-en.tar", lambda path: path.write_bytes(b"<html>404</html>" * 99), "invalid header"),
        ("de-en.tar.xz", lambda path: path.write_bytes(b"<html>404</html>" * 99), "not supported"),
    ],
)
def test_an_encrypted_or_damaged_archive_is_one_line(tmp_path: Path, name: str, spoil: Any, message: str) -> None:
    spoil(tmp_path / name)
    suffix = name.removeprefix("de-en")
    with pytest.raises(UserError) as error:
        texts(open_files(tmp_path, READ | {"files": f"{{source}}-{{target}}{suffix}/*.{{language}}"}, {}))
    assert message in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_what_stands_before_damage_is_read_and_the_damage_is_told(tmp_path: Path) -> None:
    line = b"".join(b"%d\n" % (number * number) for number in range(20_000))
    members = {"a.de": b"eins\n", "a.en": b"one\n", "b.de": line, "b.en": line}
    content = tar_bytes(members)
    read = {"kind": "parallel_text", "files": "x.tar/{component}.{language}"}
    (tmp_path / "x.tar").write_bytes(content[:-100_000])
    with open_files(tmp_path, read, {}) as reader:
        rows = list(reader.rows({"de"}))
        assert rows[0].text == "one"
        assert 1 < len(rows) < 20_001
        assert any("x.tar" in note for note in reader.unreadable)
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(content)[:-4_000])
    with open_files(tmp_path, read | {"files": "x.tar.gz/{component}.{language}"}, {}) as reader:
        assert next(iter(reader.rows({"de"}))).text == "one"
        assert any(note.startswith("x.tar.gz: ") for note in reader.unreadable)


def test_one_damaged_archive_among_others_is_noted(tmp_path: Path) -> None:
    make_zip(tmp_path / "de-en.txt.zip", MEMBERS)
    (tmp_path / "fr-en.txt.zip").write_bytes(b"<html>")
    with open_files(tmp_path, READ, {}) as reader:
        assert len(list(reader.rows({"de"}))) == 2
        assert reader.unreadable == ["fr-en.txt.zip: File is not a zip file"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("{language}.zip", r"\{language\}.zip is an archive: name the files in it, as in \{language\}.zip/NAME; "
                           r"de.zip has toy.de-en.de, toy.de-en.en, README|de.zip has README, toy.de-en.de, toy"),
        ("de.zip/{language}.tar.gz", r"is an archive within an archive: unpack the outer one"),
        ("de.zip/{source}-{target}.{language}", r"there is no file like de.zip/.* in .*; de.zip has README, toy.de-en"),
    ],
)  # fmt: skip
def test_a_pattern_that_leads_to_no_file_says_what_the_archive_has(tmp_path: Path, files: str, message: str) -> None:
    make_zip(tmp_path / "de.zip", MEMBERS)
    with pytest.raises(UserError, match=message):
        open_files(tmp_path, {"kind": "parallel_text", "files": files}, {})


def test_a_folder_may_be_called_like_an_archive(tmp_path: Path) -> None:
    files = {f"de-en.txt.zip/{name}": content for name, content in MEMBERS.items()}
    assert texts(open_files(tmp_path, READ, files)) == PAIRS


def test_memory_does_not_grow_with_a_compressed_tar(tmp_path: Path) -> None:
    peaks = []
    for count in (200, 20_000):
        line = b"".join(b"%099d\n" % number for number in range(count))
        (tmp_path / "x.tar.gz").write_bytes(gzip.compress(tar_bytes({"x.de": line, "x.en": line}), 1))
        tracemalloc.start()
        with open_files(tmp_path, {"kind": "parallel_text", "files": "x.tar.gz/x.{language}"}, {}) as reader:
            assert sum(1 for _ in reader.rows({"de"})) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 3_000_000  # the larger one has 4 MB


def test_where_a_pattern_reaches_into_an_archive() -> None:
    cases = {
        "a/de-en.txt.zip/x/{language}": ("a/de-en.txt.zip", "x/{language}"),
        "{source}-{target}.tar.gz/*": ("{source}-{target}.tar.gz", "*"),
        "x.zip": None,
        "x.gz/y": None,
        "zip/y": None,
    }
    assert {pattern: split_archive(pattern) for pattern in cases} == cases
