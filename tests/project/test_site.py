"""The rendered site: links of pages lead from where a page is staged to where its targets are."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def stage() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stage", ROOT / "docs" / "stage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("page", "text", "expected"),
    [
        ("README.md", "[a](docs/moe.md#presets)", "[a](moe.md#presets)"),
        ("README.md", "![a](docs/quickstart.svg)", "![a](quickstart.svg)"),
        ("README.md", "[a](CONTRIBUTING.md)", "[a](contributing.md)"),
        ("docs/moe.md", "[a](../README.md) [b](data.md)", "[a](index.md) [b](data.md)"),
        ("docs/moe.md", "[a](../examples/x.py)", "[a](source/examples/x.py.md)"),
        ("docs/moe.md", "[a](../LICENSE)", "[a](source/LICENSE)"),
        ("benchmarks/README.md", "[a](../docs/results.md)", "[a](results.md)"),
        ("findings/README.md", "[a](b.sh)", "[a](source/findings/b.sh.md)"),
        ("docs/moe.md", "[a](https://x.org/y.md) [b](#here)", "[a](https://x.org/y.md) [b](#here)"),
        ("docs/moe.md", "```sh\n[a](../README.md)\n```", "```sh\n[a](../README.md)\n```"),
    ],
)
def test_links(stage: ModuleType, page: str, text: str, expected: str) -> None:
    assert stage.staged(page, text)[0] == expected


def test_every_link_of_a_staged_page_has_a_target(
    stage: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "STAGED", tmp_path / "pages")
    stage.main()
    pages = sorted((tmp_path / "pages").rglob("*.md"))
    assert len(pages) > 20
    for page in pages:
        for link in stage._LINK.findall(
            stage._FENCED.sub("", re.sub(r"````.*?````", "", page.read_text(), flags=re.S))
        ):
            assert (page.parent / link[0]).exists(), f"{page.name}: {link[0]}"


def test_every_page_is_in_the_navigation(stage: ModuleType) -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = {Path(name).name for name in re.findall(r"^ *- (\S+\.md)$", text, flags=re.MULTILINE)}
    docs = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert named == docs | set(stage.PAGES.values())
    assert yaml.safe_load(text)["docs_dir"] == stage.STAGED.relative_to(ROOT).as_posix()
