"""Places of files: declarations and the cache; object stores, and atomic writes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from etils import epath
from platformdirs import user_cache_dir

from nmt.errors import UserError, did_you_mean

MESHES = "recipes/meshes"
# The folder of each kind of declaration, and the name of one declaration of that kind.
_SINGULAR = {"recipes": "recipe", "models": "model", "data": "corpus", MESHES: "mesh preset"}
DECLARATIONS = tuple(_SINGULAR)


def cache_dir(*parts: str) -> Path:
    """Return (and make) a folder under `$NMT_CACHE`, by default the user's cache directory.

    Raises:
      UserError: the folder cannot be made.
    """
    folder = Path(os.environ.get("NMT_CACHE") or user_cache_dir("nmt")).joinpath(*parts)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the cache folder {folder}: {error.strerror}; set NMT_CACHE to another one"
        ) from None
    return folder


def declaration_dirs(kind: str) -> list[Path]:
    """Return the folders that hold declarations of a kind, first match first: here, the checkout, the package."""
    package = Path(__file__).parent
    candidates = [Path.cwd() / kind, package.parent / kind, package / "_declarations" / kind]
    return [folder for folder in dict.fromkeys(candidates) if folder.is_dir()]


def declarations(kind: str) -> dict[str, Path]:
    """Return every declaration of a kind, by name (`recipes` -> `{"quickstart": .../quickstart.yaml}`)."""
    found: dict[str, Path] = {}
    for folder in declaration_dirs(kind):
        for path in sorted(folder.glob("*.yaml")):
            found.setdefault(path.stem, path)
    return found


def find_declaration(kind: str, name: str) -> Path:
    """Return the YAML file that a name or a path refers to.

    Args:
      kind: one of `DECLARATIONS`.
      name: a path ending in .yaml, or the name of a file in one of `declaration_dirs(kind)`.

    Raises:
      UserError: no such file; the message names the nearest ones.
    """
    singular = _SINGULAR[kind]
    if name.endswith((".yaml", ".yml")):
        if (path := Path(name)).is_file():
            return path
        raise UserError(f"no {singular} file {name}")
    known = declarations(kind)
    if name not in known:
        raise UserError(f"unknown {singular} {name!r}{did_you_mean(name, known)} (known: {', '.join(sorted(known))})")
    return known[name]


def is_remote(path: os.PathLike[str] | str) -> bool:
    """Return whether a path is in an object store, such as gs://bucket/run, rather than in a file system."""
    return "://" in os.fspath(path)


def check_store(folder: epath.Path) -> None:
    """Check that a folder, if it is in an object store, can be looked into.

    Raises:
      UserError: it cannot; the message says what to install or to check.
    """
    if not is_remote(folder):
        return
    try:
        folder.exists()
    except Exception as error:
        raise store_problem("cannot look into", folder, error) from None


def store_problem(what: str, folder: epath.Path, error: Exception) -> UserError:
    """Return the error for a person when an object store refuses something; its clients raise errors of many kinds."""
    if isinstance(error, ImportError):
        return UserError(f"{folder} needs another package ({error}): for gs:// pip install 'nmt-moe[gcs]'")
    reason = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        reason = "there is no such bucket"
    return UserError(f"{what} {folder}: {reason}; check the bucket and this machine's credentials")


def allow_open_files(count: int) -> None:
    """Let this process open `count` more files, up to the system's limit. A memory-mapped file is an open one."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count + 1024
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


@contextmanager
def atomic_write(path: os.PathLike[str] | str) -> Iterator[epath.Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it if it fails."""
    final = epath.Path(path)
    temporary = final.parent / f".{final.name}.{os.getpid()}.tmp"
    try:
        yield temporary
        temporary.replace(final)
    finally:
        if temporary.exists():
            temporary.unlink()
