"""The documentation does what it says: commands parse, files and links exist; `test_docs_run.py` runs marked blocks."""

import importlib
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from pages import ALL, LANGUAGES, MARK, PAGES, ROOT, RUNNABLE, Block, blocks

from nmt.cli import plan, train, vocab
from nmt.config import load_recipe
from nmt.config.arguments import read_arguments
from nmt.files import declarations

COMMANDS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
_SEPARATORS = {"|", "||", "&", "&&", ";", "(", ")"}
_FOLDERS = r"nmt|docs|tests|recipes|models|data|benchmarks|examples|findings|\.ci"
_OURS = re.compile(rf"(?:{_FOLDERS})/[\w.*/-]*|[\w-]+\.(?:toml|md|txt)")
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    text = page.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def simple_commands(text: str) -> Iterator[list[str]]:
    """Yield the words of every command of a shell script, without redirections and settings of variables."""
    text = re.sub(r"(?<=\s)\d(?=>)", "", text.replace("\\\n", " ").replace("\n", "\n; "))
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for token in [*lexer, ";"]:
        if token in _SEPARATORS:
            if words:
                yield words
            words = []
        elif set(token) <= set("<>&"):
            skip = True
        elif skip:
            skip = False
        elif words or not re.match(r"^[A-Z_]+=", token):
            words.append(token)


def commands(block: Block) -> list[list[str]]:
    return [words for words in simple_commands(block.text) if words[0] in COMMANDS]


def check_command(words: list[str]) -> None:
    """Let a command parse its arguments, and do nothing else."""
    name, *arguments = words
    if {"--help", "--version"} & set(arguments):
        return
    if name in ("nmt-train", "nmt-plan"):
        request = train.parse_train(arguments) if name == "nmt-train" else plan.parse_plan(arguments)
        if request.recipe in declarations("recipes"):
            load_recipe(request.recipe, [word for word in request.overrides if "NAME" not in word])
        else:
            read_arguments(request.overrides)
        return
    if name == "nmt-vocab":
        wanted = vocab.parse_vocab(arguments)
        read_arguments(wanted.overrides)
        return
    command = typer.main.get_command(importlib.import_module(COMMANDS[name].partition(":")[0]).app)
    if below := getattr(command, "commands", {}):
        name, *arguments = arguments
        command = below[name]
    command.make_context(name, arguments)


# The reading of pages.


def test_blocks_and_commands_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"a\n\n{MARK}\n```sh\nx\n```\n\n```text\ny\n```\n")
    assert [(block.language, block.text, block.marked) for block in blocks(page)] == [
        ("sh", "x\n", True),
        ("text", "y\n", False),
    ]
    script = "# a comment\nX=1 echo 'a | b' | nmt-a --to x < in > out 2>&1\nnmt-b \\\n  c && d; e  # why\nf\n"
    expected = [["echo", "a | b"], ["nmt-a", "--to", "x"], ["nmt-b", "c"], ["d"], ["e"], ["f"]]
    assert list(simple_commands(script)) == expected


def test_mistakes_in_commands_are_found() -> None:
    check_command(["nmt-train", "recipe=quickstart", "train.steps=5"])
    check_command(["nmt-evaluate", "runs/x", "--pairs", "de-en"])
    for words in (
        "nmt-train recipe=quickstart",
        "nmt-train recipe=my.yaml",
        "nmt-plan recipe=quickstart topology=cpu:2",
    ):
        with pytest.raises(Exception, match=r"train\.stepz"):
            check_command([*words.split(), "train.stepz=5"])
    with pytest.raises(Exception, match="--pears"):
        check_command(["nmt-evaluate", "runs/x", "--pears", "de-en"])


# The pages.


def test_there_are_pages_to_check() -> None:
    assert {"README.md", "getting-started.md", "configuration.md", "CONTRIBUTING.md"} <= {page.name for page in PAGES}
    assert ROOT / "docs" / "getting-started.md" in RUNNABLE


def test_marks_stand_before_blocks_that_can_be_run() -> None:
    for page in PAGES:
        marks = page.read_text(encoding="utf-8").split("\n").count(MARK)
        assert marks == sum(block.marked for block in blocks(page)), f"{page.name}: a mark without a block"
    assert [str(block) for block in ALL if block.marked and block.language not in LANGUAGES] == []


@pytest.mark.parametrize("block", [block for block in ALL if commands(block)], ids=str)
def test_commands_parse(block: Block) -> None:
    for words in commands(block):
        check_command(words)


@pytest.mark.parametrize("block", [block for block in ALL if block.language == "python"], ids=str)
def test_python_compiles(block: Block) -> None:
    compile(block.text, str(block), "exec")


@pytest.mark.parametrize("block", [block for block in ALL if "\n  corpora: " in block.text], ids=str)
def test_recipes_can_be_loaded(block: Block, tmp_path: Path) -> None:
    (tmp_path / "page.yaml").write_text(block.text)
    load_recipe(str(tmp_path / "page.yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_conflict_of_a_merge_is_left(page: Path) -> None:
    assert re.findall(r"^(?:<{7}|>{7}|\|{7}) .*$", page.read_text(encoding="utf-8"), re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_mentioned_exist(page: Path) -> None:
    """Names in capitals, as in data/NAME.yaml, stand for others."""
    spans = re.findall(r"`([^`\n]+)`", prose(page))
    paths = [span.rstrip("/") for span in spans if _OURS.fullmatch(span)]
    missing = [path for path in paths if not re.search(r"[A-Z]{4}\.", path) and not list(ROOT.glob(path))]
    assert missing == []


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", prose(file), flags=re.MULTILINE)
            named = re.findall(r'<a id="([^"]+)">', prose(file))
            assert anchor in {*named, *(slug(heading) for heading in headings)}, target


def test_every_room_stands_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rooms = [path for path in (ROOT / "nmt").iterdir() if (path / "__init__.py").exists() or path.suffix == ".py"]
    named = {f"`nmt/{path.name}{'/' if path.is_dir() else ''}`" for path in rooms if path.name != "__init__.py"}
    assert {name for name in named if f" {name} " not in text} == set()
