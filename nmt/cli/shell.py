"""The common ground of all commands: how they end, and how their process is prepared before JAX is imported."""

import errno
import logging
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from nmt.errors import UserError
from nmt.files import cache_dir

if TYPE_CHECKING:
    from typer import Typer

_Request = TypeVar("_Request")

# Buffers of many megabytes in huge pages, taken from the heap and kept there, instead of fresh 4 KiB pages at every
# step of training: the page faults take up to a fifth of a step on a CPU.
_TUNABLES = {
    "glibc.malloc.hugetlb": "1",
    "glibc.malloc.mmap_max": "0",
    "glibc.malloc.trim_threshold": str(32 << 30),
}
_RESTARTED = "NMT_RESTARTED"
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "GRPC_VERBOSITY": "ERROR"}
# What gcsfs has for zonal buckets asks for the type of a bucket at every turn, and warns each time if it may not.
_STORES = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
_FULL = {errno.ENOSPC: "no space left on the disk", errno.EDQUOT: "the disk quota is used up"}


def command_name() -> str:
    """Return the name of the running command, `nmt-train` also for `python -m nmt.cli.train`."""
    return f"nmt-{Path(sys.argv[0]).stem.removeprefix('nmt-')}"


def run_command(function: Callable[[], object], leave: Callable[[int], NoReturn] = sys.exit) -> NoReturn:
    """Run a command and end the process as a command should, by calling `leave` with the status.

    Status 0: done; 2: a `UserError`, or a full disk, told in one line; 130: interrupted; 141: the reader of standard
    output has gone, which is no mistake (`| head`). Anything else is a bug of ours and keeps its traceback (status 1).
    A process whose run another host has left ends by itself with 75, see `nmt.sharding.hosts`.
    """
    for name, value in _STORES.items():
        os.environ.setdefault(name, value)
    # It warns of a machine without Google's metadata server; whether that matters, the store's answer tells.
    logging.getLogger("google.auth").setLevel(logging.ERROR)
    try:
        function()
        sys.stdout.flush()
    except UserError as error:
        _tell("\n".join(f"error: {line}" for line in str(error).splitlines()))
        leave(2)
    except KeyboardInterrupt:
        _tell("interrupted")
        leave(130)
    except BrokenPipeError:
        if not (gone := _streams_without_reader()):
            raise
        # Python flushes its streams once more at its end: they must not meet the broken pipe again.
        for stream in gone:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        leave(141)
    except OSError as error:
        if error.errno not in _FULL:
            raise
        place = f": {error.filename}" if error.filename else ""
        _tell(f"error: {_FULL[error.errno]}{place}; make room, or use another disk (run_dir=..., NMT_CACHE)")
        leave(2)
    leave(0)


def parsed(app: "Typer", *requests: type[_Request]) -> _Request | None:
    """Parse the arguments of the process; return None if they asked for help, which is then shown.

    Typer only parses: interruptions and broken pipes are left to `run_command`.

    Args:
      app: an application whose commands return a request.
      requests: the types of requests.

    Raises:
      UserError: an unknown option, a missing argument, a wrong value.
    """
    try:
        asked = app(standalone_mode=False)
    except Exception as error:
        # Its usage errors have no public class that all its versions share, but they all explain themselves.
        if (explain := getattr(error, "format_message", None)) is None:
            raise
        raise UserError(f"{' '.join(explain().split())} (see {command_name()} --help)") from None
    return asked if isinstance(asked, requests) else None


def tell_note(text: str) -> None:
    """Tell a person something on standard error that is no mistake."""
    print(f"{command_name()}: note: {text}", file=sys.stderr)


def prepare_process() -> None:
    """Set up the process of a command that computes; call it once its arguments are known to be good, before JAX.

    Turns on JAX's persistent compilation cache, quietens libraries, and on Linux with glibc restarts the process once
    with an allocator that suits large arrays. Whatever the user has set in the environment stays.
    """
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    _use_compilation_cache()
    _use_huge_pages()


def merged_tunables(given: str) -> str:
    """Return `$GLIBC_TUNABLES` with ours added after those that are given, which win."""
    settings = [setting for setting in given.split(":") if setting]
    names = {setting.partition("=")[0] for setting in settings}
    return ":".join(settings + [f"{name}={value}" for name, value in _TUNABLES.items() if name not in names])


def _tell(message: str) -> None:
    for line in message.splitlines():
        print(f"{command_name()}: {line}", file=sys.stderr)


def _streams_without_reader() -> list[int]:
    """Return the file descriptors of standard output and standard error that are pipes without a reader."""
    poll = select.poll()
    for stream in (sys.stdout, sys.stderr):
        poll.register(stream.fileno(), 0)
    return [stream for stream, event in poll.poll(0) if event & select.POLLERR]


def _use_compilation_cache() -> None:
    # A dump of a program's stages needs the program to be compiled.
    if os.environ.get("NMT_COMPILATION_CACHE") == "0" or "xla_dump_to" in os.environ.get("XLA_FLAGS", ""):
        return
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        try:
            os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache_dir("xla"))
        except UserError as error:
            print(f"{command_name()}: warning: compiled programs are not kept: {error}", file=sys.stderr)
            return
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def _use_huge_pages() -> None:
    """Restart the process with `_TUNABLES`, which glibc reads before anything of ours runs."""
    tunables = merged_tunables(os.environ.get("GLIBC_TUNABLES", ""))
    if os.environ.get("NMT_HUGE_PAGES") == "0" or tunables == os.environ.get("GLIBC_TUNABLES"):
        return
    if _RESTARTED in os.environ or not _has_glibc() or not _is_command() or not sys.executable:
        return
    sys.stdout.flush()
    sys.stderr.flush()
    os.environ |= {"GLIBC_TUNABLES": tunables, _RESTARTED: "1"}
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _has_glibc() -> bool:
    try:
        return sys.platform == "linux" and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (OSError, ValueError):
        return False


def _is_command() -> bool:
    """Return whether this is one of our commands: the process of a notebook or of pytest is not ours to restart."""
    program = Path(sys.argv[0])
    return program.name.startswith("nmt-") or program.parent == Path(__file__).parent
