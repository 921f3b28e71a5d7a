"""The shell that the commands share, and what nmt-train says without training anything."""

import errno
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import nmt.cli
from nmt.cli.shell import merged_tunables
from nmt.cli.train import TrainArguments, parse_train, usage
from nmt.config.keys import recipe_keys
from nmt.errors import UserError
from nmt.files import declarations

HEAVY = {"jax", "jaxlib", "flax", "optax", "orbax", "grain", "sacrebleu", "sentencepiece", "tensorflow", "numpy"}
SET_BY_THE_SHELL = (
    "GLIBC_TUNABLES",
    "NMT_",
    "JAX_COMPILATION",
    "JAX_PERSISTENT",
    "XLA_FLAGS",
    "TF_CPP",
    "GRPC",
    "NO_GCE",
)
COMMANDS = sorted(module.name for module in pkgutil.iter_modules(nmt.cli.__path__))
HAS_GLIBC = sys.platform == "linux" and (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")


def run(*arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments and standard input, in an environment without what the shell would set."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(SET_BY_THE_SHELL)}
    return subprocess.run(
        [sys.executable, *arguments],
        input=given,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        env=clean | environment,
    )


def train(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run("-m", "nmt.cli.train", *arguments)


# Imports stay light: what a module imports is loaded before its command can say anything.


@pytest.mark.parametrize("module", ["nmt", "nmt.config.reference", *(f"nmt.cli.{name}" for name in COMMANDS)])
def test_imports_stay_light(module: str) -> None:
    done = run("-c", f"import sys, json, {module}; print(json.dumps(sorted(sys.modules)))")
    loaded = {name.partition(".")[0] for name in json.loads(done.stdout)}
    assert not loaded & HEAVY
    if module == "nmt":
        assert not loaded & {"pydantic", "yaml", "etils", "rich", "typer"}


# How commands end.

ENDINGS = """
import errno, os, signal, sys
from nmt.cli.shell import run_command
from nmt.errors import UserError
sys.argv[0] = "/somewhere/nmt-probe"
def fail():
    {body}
run_command(fail)
"""


def ending(body: str) -> tuple[int, str, str]:
    done = run("-c", ENDINGS.format(body=body))
    return done.returncode, done.stdout, done.stderr


def test_a_command_that_is_done_ends_with_0() -> None:
    assert ending("print('done')") == (0, "done\n", "")


def test_a_mistake_is_one_line_and_status_2() -> None:
    assert ending("raise UserError('no such thing')") == (2, "", "nmt-probe: error: no such thing\n")
    lines = "nmt-probe: error: one\nnmt-probe: error: two\n"
    assert ending(r"raise UserError('one\ntwo')") == (2, "", lines)


def test_an_interrupt_is_one_line_and_status_130() -> None:
    # A process that is started in the background ignores the signal from birth.
    body = "signal.signal(signal.SIGINT, signal.default_int_handler); os.kill(os.getpid(), signal.SIGINT)"
    assert ending(body) == (130, "", "nmt-probe: interrupted\n")


@pytest.mark.parametrize(("number", "reason"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "the disk quota")])
def test_a_full_disk_is_one_line(number: int, reason: str) -> None:
    status, _, said = ending(f"raise OSError({number}, os.strerror({number}), '/full/file')")
    assert status == 2
    assert said.startswith(f"nmt-probe: error: {reason}")
    assert "/full/file" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("mistake", ["ValueError", "PermissionError", "BrokenPipeError"])
def test_bugs_keep_their_traceback(mistake: str) -> None:
    status, _, said = ending(f"raise {mistake}('a bug')")
    assert status == 1
    assert said.startswith("Traceback")
    assert f"{mistake}: a bug" in said


@pytest.mark.parametrize("body", ["print('x' * 1000000)", "print('short')"])
def test_a_reader_that_has_gone_is_no_mistake(body: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", ENDINGS.format(body=body)]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, encoding="utf-8", timeout=60)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


# How the process of a command is prepared.

PROBE = """
import json, os, sys
with open(sys.argv[1], "a") as starts:
    starts.write("started\\n")
from nmt.cli.shell import prepare_process
prepare_process()
assert "jax" not in sys.modules
json.dump({"environment": dict(os.environ), "arguments": sys.argv[1:], "input": sys.stdin.read()}, sys.stdout)
"""
TUNABLES = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368"


def probe(folder: Path, *python: str, name: str = "nmt-probe", **environment: str) -> tuple[int, dict[str, str], str]:
    """Return how often a command was started, its environment in the end, and what it wrote to standard error."""
    (folder / name).write_text(PROBE)
    starts = folder / "starts"
    starts.unlink(missing_ok=True)
    arguments = [str(starts), "a b", "--c=*"]
    places = {"NMT_CACHE": str(folder / "cache"), "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = run(*(python or [str(folder / name)]), *arguments, given="text", **places | environment)
    assert done.returncode == 0, done.stderr
    end = json.loads(done.stdout)
    assert end["arguments"] == arguments
    assert end["input"] == "text"
    return len(starts.read_text().splitlines()), end["environment"], done.stderr


@pytest.mark.skipif(not HAS_GLIBC, reason="glibc only")
def test_a_command_restarts_once_with_huge_pages(tmp_path: Path) -> None:
    starts, environment, said = probe(tmp_path)
    assert (starts, environment["GLIBC_TUNABLES"], said) == (2, TUNABLES, "")


@pytest.mark.skipif(not HAS_GLIBC, reason="glibc only")
def test_a_command_run_as_a_module_restarts_as_a_module(tmp_path: Path) -> None:
    starts, environment, _ = probe(tmp_path, "-X", "dev", "-m", "nmt-probe", name="nmt-probe.py")
    assert (starts, environment["GLIBC_TUNABLES"]) == (2, TUNABLES)


@pytest.mark.skipif(not HAS_GLIBC, reason="glibc only")
def test_tunables_that_are_set_win(tmp_path: Path) -> None:
    given = "glibc.malloc.hugetlb=0:glibc.malloc.arena_max=2"
    starts, environment, _ = probe(tmp_path, GLIBC_TUNABLES=given)
    rest = ":glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368"
    assert (starts, environment["GLIBC_TUNABLES"]) == (2, given + rest)
    assert probe(tmp_path, GLIBC_TUNABLES=given + rest)[0] == 1


@pytest.mark.parametrize("environment", [{"NMT_HUGE_PAGES": "0"}, {"NMT_RESTARTED": "1"}])
def test_no_restart_when_turned_off_or_done_already(tmp_path: Path, environment: dict[str, str]) -> None:
    starts, after, _ = probe(tmp_path, **environment)
    assert starts == 1
    assert "GLIBC_TUNABLES" not in after


def test_programs_of_others_are_not_restarted(tmp_path: Path) -> None:
    assert probe(tmp_path, name="notebook.py")[0] == 1


def test_merged_tunables() -> None:
    assert merged_tunables("") == TUNABLES
    assert merged_tunables(TUNABLES) == TUNABLES
    assert merged_tunables("a.b=1:") == f"a.b=1:{TUNABLES}"


def test_compiled_programs_are_kept_in_the_cache(tmp_path: Path) -> None:
    _, environment, _ = probe(tmp_path)
    assert environment["JAX_COMPILATION_CACHE_DIR"] == str(tmp_path / "cache" / "xla")
    assert (tmp_path / "cache" / "xla").is_dir()
    assert float(environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"]) < 1


def test_what_the_user_set_stays(tmp_path: Path) -> None:
    given = {
        "JAX_COMPILATION_CACHE_DIR": "/mine",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "7",
        "TF_CPP_MIN_LOG_LEVEL": "0",
        "NMT_CACHE": str(tmp_path / "unused"),
    }
    _, environment, _ = probe(tmp_path, **given)
    assert {name: environment[name] for name in given} == given
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize("environment", [{"NMT_COMPILATION_CACHE": "0"}, {"XLA_FLAGS": "--xla_dump_to=/tmp/x"}])
def test_compilation_cache_can_be_turned_off(tmp_path: Path, environment: dict[str, str]) -> None:
    assert "JAX_COMPILATION_CACHE_DIR" not in probe(tmp_path, **environment)[1]


def test_a_cache_that_cannot_be_made_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    _, environment, said = probe(tmp_path, NMT_CACHE=str(tmp_path / "file" / "cache"), NMT_HUGE_PAGES="0")
    assert "JAX_COMPILATION_CACHE_DIR" not in environment
    assert said.startswith("nmt-probe: warning: compiled programs are not kept: cannot make the cache folder")
    assert said.count("\n") == 1


# nmt-train.


def test_help_names_every_recipe_and_key_in_100_columns() -> None:
    text = usage()
    assert max(map(len, text.splitlines())) <= 100
    for name in declarations("recipes"):
        assert f"\n  {name} " in text
    for key in recipe_keys():
        assert key.name in text


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"], ["recipe=quickstart", "--help"]])
def test_help_is_shown(arguments: list[str]) -> None:
    done = train(*arguments)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: nmt-train recipe=")


def test_help_survives_a_damaged_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "bad.yaml").write_text("a: [")
    monkeypatch.chdir(tmp_path)
    assert "\n  bad             (cannot be read: recipes/bad.yaml:1: not valid YAML" in usage()


def test_version() -> None:
    done = train("--version")
    assert (done.returncode, done.stdout) == (0, f"nmt-train {nmt.__version__}\n")


def test_parse() -> None:
    assert parse_train(["recipe=a=b.yaml"]) == TrainArguments("a=b.yaml", False, ())
    assert parse_train(["quickstart", "seed=1", "dry_run=true"]) == TrainArguments("quickstart", True, ("seed=1",))
    assert parse_train(["dry_run=False", "seed=1", "recipe=q", "name=x"]) == TrainArguments(
        "q", False, ("seed=1", "name=x")
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["seed=1"], "which recipe? write recipe=NAME (known: "),
        (["recipe="], "which recipe? write recipe=NAME (known: "),
        (["recipe=a", "recipe=b"], "recipe is given twice: a and b"),
        (["a", "recipe=b"], "recipe is given twice: a and b"),
        (["recipe=a", "dry_run=true", "dry_run=true"], "dry_run is given twice: true and true"),
        (["recipe=a", "b"], "argument 'b' is not of the form key=value, as b=VALUE"),
        (["a", "dry_run"], "argument 'dry_run' is not of the form key=value, as dry_run=true"),
        (["a", "dry_run=yes"], "dry_run must be true or false (not 'yes')"),
        (["a", "--dry-run"], "unknown option --dry-run: keys are written without dashes, as dry_run=true"),
        (["a", "--train.steps=5"], "unknown option --train.steps=5: keys are written without dashes, as train.steps=5"),
        (["a", "--seed", "5"], "unknown option --seed: keys are written without dashes, as seed=VALUE"),
        (["recipie=a"], "argument recipie=a: unknown key recipie; did you mean recipe?"),
        (["a", "dryrun=true"], "argument dryrun=true: unknown key dryrun; did you mean dry_run?"),
    ],
)
def test_arguments_that_are_not_understood(arguments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_train(arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recipe=quickstrat"], "unknown recipe 'quickstrat'; did you mean quickstart?"),
        (["quickstart", "train.stepz=1"], "argument train.stepz=1: unknown key train.stepz; did you mean train.steps?"),
        (["quickstart", "train.steps=x"], "argument train.steps=x: train.steps must be a whole number, at least 1"),
        (["seed=1"], "which recipe?"),
    ],
)
def test_mistakes_end_the_command(arguments: list[str], message: str) -> None:
    done = train(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"nmt-train: error: {message}")
    assert done.stderr.count("\n") == 1


def test_the_installed_command_is_the_module() -> None:
    command = Path(sys.executable).parent / "nmt-train"
    if not command.exists():
        pytest.skip("the package is not installed beside this interpreter")
    done = subprocess.run([command, "recipe=quickstrat"], capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stderr) == (2, train("recipe=quickstrat").stderr)
