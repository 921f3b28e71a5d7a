"""Which programs of a search have been compiled, here or by an earlier process, and which would be worth it."""

import hashlib
import json
from typing import Any

import jax
from etils import epath

COMPILE_SECONDS = 4.0  # a guess of what a program costs, until one has been compiled


class CompiledPrograms:
    """The programs there are, by the text that names each, and the time that was lost for want of others.

    Programs of few rows, short sources or short targets save time, but each has to be compiled once. One that is not
    there yet is taken when as much time has been lost without it as it costs, so that at most half of the time is
    spent in vain. JAX keeps compiled programs on disk; a list beside them lets the next process use them at once.

    Args:
      model: the model, for whose shapes a list is kept.
    """

    def __init__(self, model: Any):
        leaves = [(jax.tree_util.keystr(path), x.shape, str(x.dtype)) for path, x in jax.tree.leaves_with_path(model)]
        about = [jax.__version__, jax.default_backend(), jax.device_count(), str(leaves)]
        folder = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
        name = f"search-{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]}.txt"
        self._file = epath.Path(folder) / name if folder else None
        self._listed = self._read()
        self._known: set[str] = set()
        self._lost: dict[str, float] = {}
        self._seconds = COMPILE_SECONDS

    def is_worthwhile(self, name: str) -> bool:
        """Return whether to use a program: it is there, or as much time was lost without it as compiling it takes."""
        return name in self._known or name in self._listed or self._lost.get(name, 0.0) > self._seconds

    def add_loss(self, name: str, seconds: float) -> None:
        """Count seconds that a program would have saved."""
        self._lost[name] = self._lost.get(name, 0.0) + seconds

    def note_use(self, name: str, seconds: float) -> bool:
        """Take down that a program ran for so many seconds; return whether it had run before, so was not compiled."""
        if name in self._known:
            return True
        self._known.add(name)
        if name not in self._listed:
            self._seconds = seconds
            self._list(name)
        return False

    def _read(self) -> set[str]:
        try:
            return set(self._file.read_text().split()) if self._file is not None else set()
        except (OSError, UnicodeDecodeError):
            return set()

    def _list(self, name: str) -> None:
        self._listed.add(name)
        if self._file is None:
            return
        try:
            with self._file.open("a") as file:
                file.write(f"{name}\n")
        except OSError:
            # A cache that cannot be written holds no programs either.
            self._file = None
