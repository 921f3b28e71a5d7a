"""Datasets of TensorFlow Datasets: prepared by it without TensorFlow, and read as its own reader reads them."""

import http.server
import io
import socket
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from toy_corpus import write_spec

from nmt.config import CleanConfig
from nmt.corpora import inputs_digest, load_spec, open_corpus
from nmt.corpora.obtain import prepare_tfds, tfds
from nmt.corpora.obtain.fetch import find_fetched
from nmt.errors import UserError
from nmt.languages import Direction

# Two datasets, one of pairs and one of as many languages as an example has; the URL of their text is an argument.
BUILDERS = """
import pathlib, sys
import tensorflow_datasets as tfds

URL = {url!r}


class _Toy(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=self.FEATURES)

    def _split_generators(self, manager):
        folder = pathlib.Path(manager.download_and_extract(URL))
        return {{split: self._generate_examples(folder / f"{{split}}.tsv") for split in ("train", "test")}}

    def _generate_examples(self, path):
        for number, line in enumerate(path.read_text().splitlines()):
            yield number, self.example(line.split("\\t"))


class ToyPairs(_Toy):
    FEATURES = tfds.features.Translation(languages=("de", "en"))

    def example(self, cells):
        return {{"en": cells[0], "de": cells[1]}}


class ToyMany(_Toy):
    FEATURES = tfds.features.FeaturesDict(
        {{
            "talk": tfds.features.Text(),
            "translations": tfds.features.TranslationVariableLanguages(languages=("de", "en", "fr")),
        }}
    )

    def example(self, cells):
        texts = dict(zip(("en", "de", "fr"), cells))
        return {{"talk": "t", "translations": {{code: text for code, text in texts.items() if text}}}}


class ToyConfigs(ToyPairs):
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="small"), tfds.core.BuilderConfig(name="large")]
"""
MAIN = """
if __name__ == "__main__":
    assert not any(name.split(".")[0] == "tensorflow" for name in sys.modules)
    from nmt.corpora.obtain.prepare_tfds import main

    sys.exit(main(sys.argv[1]))
"""
LINES = {
    "train": [f"Line {n} is here.\tZeile {n} ist hier.\t" + f"Voici {n}." * (n % 3) for n in range(50)],
    "test": ["The last one.\tDie letzte.\t"],
}  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The address of an archive with the text."""
    folder = tmp_path / "served"
    folder.mkdir()
    with tarfile.open(folder / "toy.tar.gz", "w:gz") as archive:
        for split, lines in LINES.items():
            content = "".join(f"{line}\n" for line in lines).encode()
            entry = tarfile.TarInfo(f"{split}.tsv")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/toy.tar.gz"
        running.shutdown()


@pytest.fixture
def with_builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let the program know the datasets of the tests, whose text is at a URL."""
    monkeypatch.setenv("NMT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def register(url: str) -> Path:
        script = tmp_path / "toy_builders.py"
        script.write_text(BUILDERS.format(url=url) + MAIN)
        monkeypatch.setattr(tfds, "PROGRAM", (sys.executable, str(script)))
        return script

    return register


def declaration(tmp_path: Path, name: str, **more: Any) -> str:
    values = {
        "name": "toy",
        "licence": "CC0-1.0",
        "obtain": {"kind": "tfds", "name": name, **more},
        "split": {"by": "name", "test": ["test"]},
    }
    return write_spec(tmp_path, values, "toy.yaml")


@pytest.mark.parametrize("name", ["toy_pairs", "toy_many"])
def test_a_dataset_is_prepared_and_read_as_its_own_reader_reads_it(
    name: str, server: str, with_builders: Any, tmp_path: Path
) -> None:
    import tensorflow_datasets

    with_builders(server)
    path = declaration(tmp_path, name)
    digest = inputs_digest([load_spec(path)], [Direction("de", "en")], CleanConfig())
    with open_corpus(path) as reader:
        assert reader.languages == (["de", "en"] if name == "toy_pairs" else ["de", "en", "fr"])
        assert [(one.source, one.version) for one in reader.provenance] == [(f"TFDS {name}", "1.2.0")]
        rows = [(row.component, row.text, dict(row.translations)) for row in reader.rows({"de", "fr"})]
    place = tmp_path / "cache" / "tfds" / name / "1.2.0"
    builder = tensorflow_datasets.builder_from_directory(str(place))
    expected = []
    for split in builder.info.splits:
        for example in builder.as_data_source(split=split):
            if name == "toy_many":
                pair = example["translations"]
                texts = {
                    str(code): bytes(text).decode()
                    for code, text in zip(pair["language"], pair["translation"], strict=True)
                }
                texts = {code.removeprefix("b'").removesuffix("'"): text for code, text in texts.items()}
            else:
                texts = {code: text.decode() for code, text in example.items()}
            expected.append((split, texts.pop("en"), texts))
    assert rows == expected
    assert len(rows) == 51
    assert find_fetched(load_spec(path)) is not None
    assert inputs_digest([load_spec(path)], [Direction("de", "en")], CleanConfig()) == digest
    assert not list((tmp_path / "cache" / "tfds").glob(".fetch-*"))


def test_it_is_prepared_where_the_declaration_says(server: str, with_builders: Any, tmp_path: Path) -> None:
    with_builders(server)
    path = declaration(tmp_path, "toy_pairs", data_dir=str(tmp_path / "mine"), version="1.2.0")
    with open_corpus(path) as reader:
        assert len(list(reader.rows({"de"}))) == 51
    assert (tmp_path / "mine" / "toy_pairs" / "1.2.0" / "features.json").is_file()
    assert load_spec(path).identity()["obtain"] == {"kind": "tfds", "name": "toy_pairs", "version": "1.2.0"}


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("toy_pair", {}, r"does not know toy_pair; did you mean toy_pairs"),
        (
            "toy_configs",
            {},
            "toy_configs has several configurations; say config: with one of them, such as large, small",
        ),
        ("toy_pairs", {"version": "9.9.9"}, "9.9.9"),
    ],
)
def test_mistakes_are_told_in_one_line(
    name: str, more: dict[str, str], message: str, with_builders: Any, tmp_path: Path
) -> None:
    with_builders("http://127.0.0.1:9/toy.tar.gz")
    with pytest.raises(UserError, match=f"cannot prepare {name}.* of corpus toy: .*{message}") as raised:
        open_corpus(declaration(tmp_path, name, **more))
    assert "\n" not in str(raised.value)


def test_a_publisher_that_cannot_be_reached_is_named(with_builders: Any, tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/toy.tar.gz"
    with_builders(url)
    with pytest.raises(UserError, match=f"corpus toy: {url} cannot be reached; check the network"):
        open_corpus(declaration(tmp_path, "toy_pairs"))


def test_another_checksum_is_told_in_one_line() -> None:
    from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

    error = NonMatchingChecksumError("Artifact http://x/a.gz, downloaded to /tmp/a, has wrong checksum:\n* Expected: 1")
    assert prepare_tfds.explain(error, "toy") == (
        "a file is not the one that was published (another checksum): Artifact http://x/a.gz, downloaded to /tmp/a, "
        "has wrong checksum; try again later"
    )


def test_a_declaration_says_one_of_two_ways(tmp_path: Path) -> None:
    for more, message in [({"folder": "/x"}, "say data_dir"), ({"name": "", "config": "a"}, "needs a name")]:
        values = {"name": "toy_pairs", **more}
        with pytest.raises(UserError, match=message):
            load_spec(declaration(tmp_path, **values))


def test_tensorflow_datasets_is_imported_by_the_program_alone() -> None:
    code = "import sys, nmt.corpora, nmt.cli.data; assert 'tensorflow_datasets' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
