"""How processes find each other: who is missing or does not belong is told in one line, and in bounded time."""

import contextlib
import json
import queue
import socket
import threading
import time

import pytest

from nmt.cli.launch import KEYS, LaunchKeys, parse_launch
from nmt.cli.train import parse_train
from nmt.errors import UserError
from nmt.sharding import rollcall
from nmt.sharding.hosts import host_shard
from nmt.sharding.rollcall import Connection, Line, Place, call_roll

GREETING = {"nmt": "1", "train.steps": "100"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    for name in ("_TRY_EVERY", "_SAY_EVERY", "GRACE"):
        monkeypatch.setattr(rollcall, name, 0.05)
    for name in ("_SPEAK_WITHIN", "_PART_WITHIN"):
        monkeypatch.setattr(rollcall, name, 0.5)


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def gather(places, greetings=None, patience=10.0):
    """Call the roll in a thread for each place; return connections or errors, and what was said."""
    results, said = {}, []

    def answer(number, place):
        try:
            greeting = GREETING if greetings is None else greetings[number]
            results[number] = call_roll(place, greeting, patience, said.append)
        except UserError as error:
            results[number] = error

    threads = [threading.Thread(target=answer, args=pair) for pair in enumerate(places)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return results, said


def places(count, of=None, port=None):
    coordinator = f"localhost:{port or free_port()}"
    return [Place(coordinator, number, of or count) for number in range(count)]


class Team:
    """Processes that have found each other, and what each has heard of the loss of others."""

    def __init__(self, count):
        self.lost = [queue.SimpleQueue() for _ in range(count)]
        self.connections, _ = gather(places(count))
        self.lines = [Line(Place("localhost:1", n, count), self.connections[n], self.lost[n].put) for n in range(count)]

    def die(self, number):
        self.lines[number].parting = True  # the dead see nothing
        for connection in self.connections[number].values():
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)


# The roll


def test_all_are_there():
    results, _ = gather(places(4))
    assert sorted(results[0]) == [1, 2, 3]
    assert all(list(results[number]) == [0] for number in (1, 2, 3))


def test_the_port_is_free_again():
    port = free_port()
    for _ in range(2):
        results, _ = gather(places(2, port=port))
        assert sorted(results[0]) == [1]


def test_who_is_missing_is_named_by_all():
    results, said = gather(places(2, of=4), patience=0.5)
    for number in (0, 1):
        assert "only 2 of 4 processes came within 0.5 s (missing: 2, 3)" in str(results[number])
    assert "waiting for 2 of 4 processes (missing: 2, 3)" in said


def test_nobody_is_there():
    began = time.monotonic()
    results, said = gather([Place(f"localhost:{free_port()}", 1, 2)], patience=0.5)
    assert time.monotonic() - began < 10
    assert "process 0 cannot be reached at localhost:" in str(results[0])
    assert "within 0.5 s (Connection refused)" in str(results[0])
    assert "waiting for process 0 at localhost:" in said[0]


def test_a_name_that_does_not_exist():
    results, _ = gather([Place("nowhere.invalid:8476", 1, 2)], patience=0.3)
    assert "process 0 cannot be reached at nowhere.invalid:8476" in str(results[0])


def test_a_port_in_use():
    with socket.create_server(("", 0)) as other:
        results, _ = gather([Place(f"localhost:{other.getsockname()[1]}", 0, 2)], patience=0.5)
    assert "cannot listen on port" in str(results[0])
    assert "choose another port in distributed.coordinator=HOST:PORT" in str(results[0])


def test_something_else_answers():
    def serve(server):
        with contextlib.suppress(OSError):
            while True:
                server.accept()[0].sendall(b"220 mail.example ESMTP\r\n")

    with socket.create_server(("", 0)) as other:
        threading.Thread(target=serve, args=(other,), daemon=True).start()
        results, _ = gather([Place(f"localhost:{other.getsockname()[1]}", 1, 2)], patience=0.5)
    assert "(something else answers there)" in str(results[0])


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b'{"process": 1}\n', b"[1]\n"])
def test_strangers_are_ignored(noise):
    port = free_port()
    results = {}
    first = threading.Thread(
        target=lambda: results.update({0: call_roll(Place(f"localhost:{port}", 0, 2), GREETING, 20, print)})
    )
    first.start()
    for _ in range(100):
        with contextlib.suppress(OSError):
            stranger = socket.create_connection(("localhost", port))
            break
        time.sleep(0.02)
    stranger.sendall(noise)
    stranger.close()
    assert call_roll(Place(f"localhost:{port}", 1, 2), GREETING, 20, print).keys() == {0}
    first.join(20)
    assert results[0].keys() == {1}


@pytest.mark.parametrize(
    ("second", "greeting", "reason"),
    [
        ((1, 3), GREETING, "process 1 counts 3 processes, but process 0 counts 2"),
        ((1, 2), GREETING | {"train.steps": "7"}, "process 1 has train.steps=7, but process 0 has train.steps=100"),
        ((1, 2), {"nmt": "1"}, "process 1 has train.steps=None, but process 0 has train.steps=100"),
    ],
)
def test_who_does_not_belong_is_sent_away(second, greeting, reason):
    coordinator = f"localhost:{free_port()}"
    team = [Place(coordinator, 0, 2), Place(coordinator, *second)]
    results, _ = gather(team, [GREETING, greeting], patience=1.0)
    assert str(results[1]) == reason
    assert "only 1 of 2 processes came" in str(results[0])


def test_two_of_one_number():
    coordinator = f"localhost:{free_port()}"
    team = [Place(coordinator, number, 3) for number in (0, 1, 1)]
    results, _ = gather(team, patience=1.5)
    reasons = [str(results[number]) for number in (1, 2)]
    assert any("there is a process 1 already" in reason for reason in reasons)


# The line


def test_process_0_tells_and_the_others_hear():
    team = Team(3)
    team.lines[0].broadcast("a", json.dumps([1]))
    team.lines[0].broadcast("b", "x")
    team.lines[0].broadcast("a", "2")
    for line in team.lines[1:]:
        assert [line.receive("b", 5), line.receive("a", 5), line.receive("a", 5)] == ["x", "[1]", "2"]
        with pytest.raises(TimeoutError):
            line.receive("a", 0.1)


def test_they_meet():
    team = Team(3)
    order = []

    def meet(number):
        for turn in range(3):
            time.sleep(0.03 * number)
            order.append((turn, "before"))
            team.lines[number].barrier(10)
            order.append((turn, "after"))

    threads = [threading.Thread(target=meet, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(order) == 18
    for turn in range(3):
        last_before = max(i for i, event in enumerate(order) if event == (turn, "before"))
        assert last_before < min(i for i, event in enumerate(order) if event == (turn, "after"))


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_all_learn_who_died(dead):
    team = Team(3)
    team.die(dead)
    for number in {0, 1, 2} - {dead}:
        assert team.lost[number].get(timeout=5) == f"process {dead} is lost: it died, or its host did"


def test_all_learn_why_one_ended():
    team = Team(3)
    team.lines[2].fail("no space left on the disk")
    for number in (0, 1):
        assert team.lost[number].get(timeout=5) == "process 2 has ended: no space left on the disk"


def test_who_fails_itself_says_so_itself():
    team = Team(2)
    for line in reversed(team.lines):
        line.fail("the loss is nan")
    time.sleep(0.3)
    assert all(lost.empty() for lost in team.lost)


def test_they_part():
    team = Team(3)
    together = []
    threads = [threading.Thread(target=lambda line=line: together.append(line.part())) for line in team.lines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert together == [True] * 3
    team.die(1)
    time.sleep(0.3)
    assert all(lost.empty() for lost in team.lost)


def test_one_parts_alone():
    assert not Team(2).lines[1].part()


def test_messages_may_come_in_pieces():
    with socket.create_server(("localhost", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours = Connection(server.accept()[0])
    theirs.sendall(b'{"a": 1}\n{"b"')
    assert ours.receive() == [{"a": 1}]
    theirs.sendall(b": 2}\n")
    assert ours.receive() == [{"b": 2}]
    theirs.sendall(b"[3]\n")
    with pytest.raises(ValueError, match="not a message"):
        ours.receive()
    theirs.close()
    with pytest.raises(EOFError):
        ours.receive()


# The keys


def test_no_keys_leave_it_to_jax():
    assert parse_launch({}) == LaunchKeys()
    assert parse_train(["quickstart"]).launch == LaunchKeys()


def test_three_keys():
    arguments = ["quickstart", *(f"distributed.{x}" for x in ("coordinator=[::1]:80", "process=1", "processes=2"))]
    assert parse_train(arguments).launch == LaunchKeys("[::1]:80", 1, 2)
    assert parse_train(arguments).overrides == ()
    assert Place("[::1]:80", 1, 2).address == ("::1", 80)


def test_one_process_asks_nobody():
    assert parse_launch({"distributed.processes": "1", "distributed.join_timeout": "5"}) == LaunchKeys(
        None, None, 1, 5, 100
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"process": "1"}, "distributed.process without distributed.coordinator and distributed.processes"),
        ({"processes": "2", "process": "0"}, "without distributed.coordinator: give all three, or none"),
        ({"process": "2", "processes": "2", "coordinator": "a:1"}, "process=2 is out of range"),
        ({"process": "-1", "processes": "2", "coordinator": "a:1"}, "process must be a whole number from 0"),
        ({"process": "x", "processes": "2", "coordinator": "a:1"}, "process must be a whole number from 0"),
        ({"processes": "0"}, "processes must be a whole number from 1"),
        ({"process": "0", "processes": "2", "coordinator": "a"}, "must be HOST:PORT"),
        ({"process": "0", "processes": "2", "coordinator": ":1"}, "must be HOST:PORT"),
        ({"process": "0", "processes": "2", "coordinator": "a:70000"}, "must be HOST:PORT"),
        ({"join_timeout": "0"}, "join_timeout must be a whole number from 1"),
        ({"process": "1", "processes": "1", "coordinator": "a:1"}, "process=1 is out of range"),
    ],
)
def test_keys_that_make_no_sense(values, message):
    with pytest.raises(UserError, match=message):
        parse_launch({f"distributed.{name}": text for name, text in values.items()})


def test_a_misspelt_key_is_noticed():
    with pytest.raises(UserError, match=r"did you mean distributed\.coordinator"):
        parse_train(["quickstart", "distributed.coordinater=a:1"])
    assert len(KEYS) == len(LaunchKeys._fields)


# Whose rows


class Placement:
    """Stands for a sharding: the rows that the devices of one host hold."""

    def __init__(self, *spans):
        self.spans = spans

    def addressable_devices_indices_map(self, shape):
        return {number: (slice(*span), slice(None)) for number, span in enumerate(self.spans)}


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([(0, 2), (2, 4)], (0, 4)),
        ([(6, 8), (4, 6)], (1, 4)),
        ([(8, 12), (8, 12)], (2, 4)),  # along an axis that is not the batch's
        ([(None, None)], (0, 1)),
        ([(0, 2), (8, 10)], (0, 1)),  # here and there
        ([(2, 6)], (0, 1)),  # not a part of the batch cut in equal parts
    ],
)
def test_a_host_feeds_the_rows_of_its_devices(spans, expected):
    assert host_shard(Placement(*spans), 16) == expected
