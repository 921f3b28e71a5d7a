"""Lay out the pages as the site has them: `python docs/stage.py && mkdocs build --strict`.

Pages link to each other and to source files by relative paths, which GitHub resolves by itself. The site has
`README.md` as its first page, `CONTRIBUTING.md` and the like beside those of docs/, and every other file that a page
links to below source/, as a page with its text. Any generator that reads Markdown can take it from there.
"""

import posixpath
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGED = ROOT / "build" / "pages"  # docs_dir of mkdocs.yml
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "findings/README.md": "findings.md",
}
SHOWN = {".py": "python", ".sh": "sh", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".tsv": "text", ".txt": "text"}
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
_FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def place(path: str) -> str:
    """Return where the site has a file of the repository; both paths are relative to the roots."""
    if path in PAGES:
        return PAGES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"source/{path}.md" if Path(path).suffix in SHOWN else f"source/{path}"


def staged(path: str, text: str) -> tuple[str, set[str]]:
    """Return the text of a page with the links of the site, and the paths that it links to.

    Args:
      path: the page, relative to the root of the repository, such as `docs/moe.md`.
      text: Markdown. Blocks of code stay as they are.

    Returns:
      The new text, and the paths of all files linked to, relative to the root of the repository.
    """
    targets = set()

    def link(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))
        targets.add(target)
        return posixpath.relpath(place(target), posixpath.dirname(place(path)) or ".") + (match[2] or "")

    parts: list[str] = []
    end = 0
    for block in _FENCED.finditer(text):
        parts += [_LINK.sub(link, text[end : block.start()]), block[0]]
        end = block.end()
    return "".join([*parts, _LINK.sub(link, text[end:])]), targets


def shown(path: str, text: str) -> str:
    """Return a page that shows a source file of the repository."""
    return f"# {Path(path).name}\n\n`{path}`\n\n````{SHOWN[Path(path).suffix]}\n{text.rstrip()}\n````\n"


def _write(path: str, text: str) -> None:
    file = STAGED / place(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def main() -> None:
    """Write all pages, pictures and linked files to `STAGED`, anew."""
    shutil.rmtree(STAGED, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGED, ignore=shutil.ignore_patterns("*.md", "*.py", "__pycache__"))
    pages = [*PAGES, *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
    linked: set[str] = set()
    for path in pages:
        text, targets = staged(path, (ROOT / path).read_text(encoding="utf-8"))
        _write(path, text)
        linked |= targets
    for path in sorted(linked.difference(pages)):
        if not path.startswith("docs/") and (ROOT / path).is_file():
            text = (ROOT / path).read_text(encoding="utf-8")
            _write(path, shown(path, text) if Path(path).suffix in SHOWN else text)


if __name__ == "__main__":
    main()
