"""Usage of experts by directions: the tables of a run, one for every checkpoint.

    RUN/experts/STEP.npz   all counts, for programs (NumPy)
    RUN/experts/STEP.tsv   for people: of every direction in every layer the experts that it uses most

A table counts the steps after the checkpoint before it (or after the start of the process, if that was later) up to
its own. The arrays of STEP.npz, with L directions and, of a stack, Y sparse layers of E experts:

    steps            int64 [2], the first and the last step counted
    directions       text [L], such as de-en
    STACK_layers     int64 [Y], the number of each sparse layer in its stack (encoder, decoder), from 0
    STACK_counts     [Y,L,E], tokens of a direction whose first choice was an expert, before capacity; of the smallest
                     unsigned integer type that holds them

Tables stay when checkpoints go: together they show how experts come to specialise.
"""

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath
from jaxtyping import Int64

from nmt.errors import UserError
from nmt.files import atomic_write

FOLDER = "experts"
STACKS = ("encoder", "decoder")
LISTED = 16  # most experts of a direction and layer in a .tsv: with 200 directions and 18 layers it has 2 MB
_HEADING = ("stack", "layer", "direction", "expert", "tokens", "share")


@dataclass(frozen=True)
class Usage:
    """One table: how many tokens of each direction went to each expert."""

    first: int  # step
    last: int  # step
    directions: tuple[str, ...]
    layers: dict[str, tuple[int, ...]]  # by stack: the numbers of its sparse layers
    counts: dict[str, Int64[np.ndarray, "_ L _"]]  # by stack: of each sparse layer, direction and expert


def write_usage(run: epath.PathLike, usage: Usage) -> None:
    """Write the table of a checkpoint, both files; each atomically, STEP.npz last."""
    folder = epath.Path(run) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / f"{usage.last}.tsv") as temporary:
        temporary.write_text("".join("\t".join(row) + "\n" for row in (_HEADING, *_rows(usage))))
    arrays = {"steps": np.array([usage.first, usage.last]), "directions": np.array(usage.directions, np.str_)}
    for stack, counts in usage.counts.items():
        small = counts.astype(np.min_scalar_type(counts.max(initial=0)))
        arrays |= {f"{stack}_layers": np.array(usage.layers[stack], np.int64), f"{stack}_counts": small}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    with atomic_write(folder / f"{usage.last}.npz") as temporary:
        temporary.write_bytes(buffer.getvalue())


def usage_steps(run: epath.PathLike) -> list[int]:
    """Return the steps of which a run has tables, oldest first."""
    folder = epath.Path(run) / FOLDER
    return sorted(int(path.stem) for path in folder.glob("*.npz") if path.stem.isdecimal()) if folder.exists() else []


def read_usage(run: epath.PathLike, step: int | None = None) -> Usage:
    """Read a table of a run.

    Args:
      run: the run's folder.
      step: that of the table; None: the newest.

    Raises:
      UserError: there is no such table, or it is damaged.
    """
    folder = epath.Path(run) / FOLDER
    steps = usage_steps(run)
    if not steps:
        raise UserError(f"{folder} holds no table of experts yet: nmt-train writes one with every checkpoint")
    if step is not None and step not in steps:
        raise UserError(f"{folder} holds no table of step {step} (there are: {', '.join(map(str, steps))})")
    path = folder / f"{steps[-1] if step is None else step}.npz"
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return _usage(arrays)
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}): choose another step, or delete it") from None


def drop_usage_after(run: epath.PathLike, step: int) -> None:
    """Remove the tables of later steps than a run goes on from: these steps will be done again."""
    folder = epath.Path(run) / FOLDER
    if not folder.exists():
        return
    for path in list(folder.iterdir()):
        if path.suffix in (".npz", ".tsv") and path.stem.isdecimal() and int(path.stem) > step:
            path.unlink()


def _usage(arrays: Mapping[str, np.ndarray]) -> Usage:
    """Return the table that the arrays of a file hold; KeyError, TypeError or ValueError: they do not."""
    first, last = map(int, arrays["steps"])
    directions = tuple(map(str, arrays["directions"]))
    stacks = [stack for stack in STACKS if f"{stack}_counts" in arrays]
    layers = {stack: tuple(map(int, arrays[f"{stack}_layers"])) for stack in stacks}
    counts = {}
    for stack in stacks:
        array = arrays[f"{stack}_counts"]
        if array.ndim != 3 or array.shape[:2] != (len(layers[stack]), len(directions)) or array.dtype.kind != "u":
            raise ValueError(f"{stack}_counts are {array.dtype} {array.shape}")
        counts[stack] = array.astype(np.int64)
    if not stacks:
        raise ValueError("there are no counts")
    return Usage(first, last, directions, layers, counts)


def _rows(usage: Usage) -> Iterator[Sequence[str]]:
    for stack, counts in usage.counts.items():
        for layer, table in zip(usage.layers[stack], counts, strict=True):
            for direction, row in zip(usage.directions, table, strict=True):
                total = int(row.sum())
                for expert in np.argsort(-row, kind="stable")[:LISTED]:
                    tokens = int(row[expert])
                    share = f"{tokens / total:.4f}" if total else ""
                    yield stack, str(layer), direction, str(expert), str(tokens), share
