"""nmt-plan --search: what is tried and in which order, what failures and interruptions leave, the command itself."""

import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_plan import GIB, RECIPE, command, environment
from synthetic import COMPILED_QUICKLY

from nmt.config import load_recipe
from nmt.plan import search
from nmt.plan.search import Attempt, Choice, Search, rank, search_as_json
from nmt.plan.topology import parse_topology
from nmt.recipes.plan_report import FITS, INTERRUPTED, TOO_LARGE, Options, plan_and_report

DENSE_AND_SHALLOW = ("model.moe=null", "model.encoder_layers=1", "model.decoder_layers=1")


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("search") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def make(recipe_file):
    def make(*keys: str, topology: str = "v3:2x2") -> Search:
        given = (f"recipe={recipe_file}", f"topology={topology}", *keys)
        return Search(load_recipe(str(recipe_file), keys), parse_topology(topology), given)

    return make


def plan_of(needed: float, seconds: float = 1.0, weights: float = 0.1) -> dict:
    """A plan that needs so many GiB of the one that there is."""
    fits = needed <= 1.0
    sizes = {"memory": {"peak": int(needed * GIB)}} if fits else {}
    return sizes | {
        "fits": fits,
        "hbm_bytes": GIB,
        "needed_bytes": int(needed * GIB),
        "available_bytes": GIB,
        "memory_by_class": {"weights": int(weights * GIB)},
        "roofline": {"step_seconds_at_most": seconds},
    }


# GiB and seconds by what is kept: what keeps less is slower.
NEEDS = {"none": (4.0, 1.0), "moe": (0.8, 1.2), "local": (0.5, 1.5), "full": (0.3, 2.0)}


def attempting(monkeypatch, needs):
    """Let attempts be what a function of a choice says, and return the list of those made."""
    made = []

    def attempt(choice, arguments):
        made.append(choice)
        return needs(choice)

    monkeypatch.setattr(search, "attempt", attempt)
    return made


def test_what_fits_keeps_more_and_more_while_it_fits(make, monkeypatch):
    trying = make("mesh.preset=expert", "mesh.model=1")  # the recipe has model.remat=local
    made = attempting(monkeypatch, lambda choice: Attempt(choice, plan_of(*NEEDS[choice.remat])))
    found = list(trying.run())
    assert [choice.remat for choice in made] == ["local", "moe", "none"]
    assert [one.choice.remat for one in rank(found)] == ["moe", "local"]
    assert trying.most >= len(made)


def test_what_does_not_fit_keeps_less_and_then_accumulates(make, monkeypatch):
    trying = make("mesh.preset=expert", "mesh.model=1", "train.tokens_per_batch=1024")
    made = attempting(
        monkeypatch, lambda choice: Attempt(choice, plan_of(5 * NEEDS[choice.remat][0] / choice.accumulate))
    )
    found = list(trying.run())
    tried = [(choice.remat, choice.accumulate) for choice in made]
    assert tried == [("local", 1), ("full", 1), ("full", 2)]
    assert [one.fits for one in found] == [False, False, True]


def test_weights_that_are_too_much_by_themselves_end_a_mesh_at_once(make, monkeypatch):
    trying = make("mesh.preset=expert", "mesh.model=1")
    made = attempting(monkeypatch, lambda choice: Attempt(choice, plan_of(9.0, weights=2.0)))
    assert len(list(trying.run())) == len(made) == 1


def test_a_failing_candidate_and_an_impossible_mesh_do_not_end_the_search(make, monkeypatch):
    trying = make()
    assert len(trying.meshes) > 2
    second = list(trying.meshes)[1]

    def needs(choice):
        if choice.mesh == second:
            return Attempt(choice, None, "does not divide", impossible=True)
        if choice.remat == "local":
            return Attempt(choice, None, "ended by signal 9")
        return Attempt(choice, plan_of(*NEEDS[choice.remat]))

    made = attempting(monkeypatch, needs)
    found = list(trying.run())
    assert [choice.remat for choice in made if choice.mesh == ()] == ["local", "full"]
    assert [choice.remat for choice in made if choice.mesh == second] == ["local"]
    assert {one.choice.mesh for one in rank(found)} == set(trying.meshes) - {second}
    written = json.loads(json.dumps(search_as_json(trying, found, ended=True)))
    assert [row.get("reason") for row in written["tried"][:2]] == ["ended by signal 9", None]
    assert written["ranked"][0]["plan"]["fits"]


def test_meshes_multiply_to_the_devices_and_differ(make):
    for topology, devices in (("v3:2x2", 8), ("v5e:2x2*2", 8), ("cpu:4", 4)):
        meshes = make(topology=topology).meshes
        assert next(iter(meshes)) == ()  # the recipe's own is the first
        assert all(math.prod(sizes.values()) == devices for sizes in meshes.values())
        assert len({json.dumps(sizes, sort_keys=True) for sizes in meshes.values()}) == len(meshes)


@pytest.mark.parametrize(
    ("keys", "holds"),
    [
        (("mesh.model=2",), lambda sizes: sizes["model"] == 2),
        (("mesh.preset=expert_fsdp", "mesh.fsdp=4"), lambda sizes: sizes["fsdp"] == 4),
        (("mesh.expert=4", "mesh.data=2"), lambda sizes: sizes["expert"] == 4 and sizes["data"] == 2),
        (("mesh.preset=data",), lambda sizes: set(sizes) == {"data"}),
    ],
)
def test_keys_that_are_given_stay(make, monkeypatch, keys, holds):
    trying = make(*keys, "model.remat=full")
    assert trying.meshes
    assert all(holds(sizes) for sizes in trying.meshes.values())
    made = attempting(monkeypatch, lambda choice: Attempt(choice, plan_of(0.5)))
    list(trying.run())
    given = {key.partition("=")[0] for key in (*keys, "model.remat")}
    assert not given & {argument.partition("=")[0] for choice in made for argument in choice.arguments}
    assert {choice.remat for choice in made} == {"full"}


def report_of(recipe_file, options, capsys, topology="v3:2x2"):
    status = plan_and_report(load_recipe(str(recipe_file)), parse_topology(topology), options)
    return status, capsys.readouterr()


def test_an_interrupted_search_ranks_what_it_has_found(recipe_file, tmp_path, monkeypatch, capsys):
    def needs(choice):
        if choice.remat == "none":
            raise KeyboardInterrupt
        return Attempt(choice, plan_of(*NEEDS[choice.remat]))

    attempting(monkeypatch, needs)
    file = tmp_path / "found.json"
    arguments = (f"recipe={recipe_file}", "topology=v3:2x2")
    status, printed = report_of(recipe_file, Options(search=True, json=str(file), arguments=arguments), capsys)
    assert status == INTERRUPTED
    assert "what fits, fastest first" in printed.out
    assert "interrupted after 2" in printed.err
    written = json.loads(file.read_text())
    assert not written["ended"]
    assert [one["arguments"][0] for one in written["ranked"]] == ["model.remat=moe", "model.remat=local"]


def test_nothing_that_fits_ends_with_status_1(recipe_file, monkeypatch, capsys):
    attempting(monkeypatch, lambda choice: Attempt(choice, plan_of(2.0)))
    arguments = (f"recipe={recipe_file}", "topology=v3:2x2")
    status, printed = report_of(recipe_file, Options(search=True, arguments=arguments), capsys)
    assert status == TOO_LARGE
    assert "nothing that was tried of small fits v3:2x2" in printed.err
    assert "too large by 1.00 GiB" in printed.out


@pytest.mark.parametrize(
    ("status", "stderr", "reason"),
    [
        (-9, "", "ended by signal 9"),
        (2, "noise\nnmt-plan: error: mesh.model=3 does not divide\n", "mesh.model=3 does not divide"),
        (
            1,
            "Traceback (most recent call last):\n  File x\njax.errors.JaxRuntimeError: INTERNAL: oh\nmore\n",
            "INTERNAL",
        ),
        (3, "", "exit status 3"),
    ],
)
def test_why_an_attempt_failed_is_one_line(monkeypatch, status, stderr, reason):
    ended = subprocess.CompletedProcess([], status, stdout="", stderr=stderr)
    monkeypatch.setattr(search.subprocess, "run", lambda *given, **keywords: ended)
    found = search.attempt(Choice((), "full", 1), ())
    assert found.plan is None
    assert reason in found.reason
    assert "\n" not in found.reason
    assert found.impossible == (status == 2)


def test_a_search_from_the_command_line(recipe_file, tmp_path):
    file = tmp_path / "found.json"
    done = command(
        f"recipe={recipe_file}",
        "topology=cpu:2",
        "--search",
        *DENSE_AND_SHALLOW,
        "model.remat=full",
        "--json",
        str(file),
        **COMPILED_QUICKLY,
    )
    assert done.returncode == FITS, done.stderr
    assert "kept as given: model.remat" in done.stdout
    written = json.loads(file.read_text())
    assert written["ended"]
    assert len(written["ranked"]) == len(written["tried"]) == 2  # rows over both devices, or hidden units
    works = [one["plan"]["flops_per_device"] for one in written["ranked"]]
    assert works == sorted(works)
    assert {one["plan"]["mesh"].get("model", 1) for one in written["ranked"]} == {1, 2}


def test_ctrl_c_ends_the_command_with_a_table(recipe_file):
    line = [
        sys.executable,
        "-m",
        "nmt.cli.plan",
        f"recipe={recipe_file}",
        "topology=cpu:2",
        "--search",
        *DENSE_AND_SHALLOW,
    ]
    running = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment() | COMPILED_QUICKLY,
        # A shell's background jobs ignore Ctrl-C, and so does all that they start, this test too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout is not None
    for printed in running.stdout:
        if "fits, peak" in printed:  # the first is done
            break
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == INTERRUPTED, err
    assert "what fits, fastest first" in out
    assert "interrupted after 1 of at most" in err
    assert "Traceback" not in err


def test_sigterm_ends_the_process_that_compiles_too(tmp_path):
    stand_in = tmp_path / "compiles"
    stand_in.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new\nmv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 600\n"
    )
    stand_in.chmod(0o755)
    program = (
        "import sys\nfrom nmt.plan.search import Choice, attempt\nsys.executable = sys.argv[1]\n"
        "try:\n    attempt(Choice((), 'none', 1), ())\nexcept KeyboardInterrupt:\n    sys.exit(7)\n"
    )
    searching = subprocess.Popen([sys.executable, "-c", program, str(stand_in)], env=environment())
    pid = tmp_path / "pid"
    until = time.monotonic() + 60
    while not pid.exists() and time.monotonic() < until:
        time.sleep(0.05)
    searching.terminate()
    assert searching.wait(timeout=60) == 7
    assert not running(int(pid.read_text()))


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # killed, and not waited for yet
