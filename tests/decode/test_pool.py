"""Sentences of several jobs in common slots: turns, moves between shapes, threads, failures, and what is compiled."""

import threading

import jax
import pytest
from test_decode import searcher, sources_of, tokens_of

from nmt.decode import pool
from nmt.decode.compiled import CompiledPrograms
from nmt.decode.options import SearchOptions
from nmt.decode.pool import Job, PoolSettings, SlotPool
from nmt.decode.requests import Sentence, shared_options, target_rules
from nmt.errors import UserError


@pytest.fixture(scope="module")
def sources():
    return sources_of(24, seed=9)


@pytest.fixture(scope="module")
def expected(sources):
    return searcher().search(sources)


def make_pool(programs=None):
    own = searcher()
    options = shared_options(SearchOptions.from_config(own.config))
    settings = PoolSettings(options, tuple(own.buckets), 1)
    targets = target_rules(options, own.tokens, own._model.vocabulary)
    return SlotPool(own._model, targets, settings, programs or own._programs)


def make_job(sources):
    own = searcher()
    options = SearchOptions.from_config(own.config)
    return Job(Sentence(number, source, own.tokens.begin, options) for number, source in enumerate(sources))


def finish(slots, *jobs):
    with searcher().layout.use():
        for _ in range(1000):
            if all(job.done for job in jobs):
                return
            slots.advance()
    raise AssertionError("the sentences are never done")


class EveryProgram:
    """Programs all of which are worthwhile."""

    def is_worthwhile(self, name):
        return True

    def note_use(self, name, seconds):
        return True

    def add_loss(self, name, seconds):
        pass


def test_sentences_move_between_slots_of_all_shapes_unchanged(sources, expected, monkeypatch):
    monkeypatch.setattr(pool, "STEPS", 3)
    shapes = set()
    slots, job = make_pool(EveryProgram()), make_job(sources[:12])
    advance = pool.advance_slots
    monkeypatch.setattr(
        pool,
        "advance_slots",
        lambda m, inputs, state, *rest: (shapes.add(state.tokens.shape), advance(m, inputs, state, *rest))[1],
    )
    slots.add(job)
    finish(slots, job)
    assert {rows for rows, _, _ in shapes} > {16, 8, 1}
    assert len({room for _, _, room in shapes}) == 1  # sources of the shortest bucket have one room
    assert tokens_of([job.found[number] for number in range(12)]) == tokens_of(expected[:12])


def test_a_short_job_does_not_wait_for_a_long_one(sources):
    slots, long, short = make_pool(), make_job(sources * 12), make_job(sources[:1])
    slots.add(long)
    with searcher().layout.use():
        slots.advance()
    slots.add(short)
    finish(slots, short)
    assert long.left > len(sources) * 6
    finish(slots, long)


def test_threads_get_what_one_gets_alone(sources, expected):
    found = {}

    def translate(number):
        found[number] = searcher().search(sources[number::6])

    threads = [threading.Thread(target=translate, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {number: tokens_of(one) for number, one in found.items()} == {
        number: tokens_of(expected[number::6]) for number in range(6)
    }


def test_a_caller_that_stops_leaves_the_slots_to_others(sources, expected):
    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        searcher().search(sources, progress=stop)
    assert tokens_of(searcher().search(sources[:3])) == tokens_of(expected[:3])


def test_too_little_memory_is_one_line_and_the_next_call_begins_anew(sources, expected, monkeypatch):
    def fail(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 17179869184 bytes.")

    monkeypatch.setattr(pool, "advance_slots", fail)
    with pytest.raises(UserError, match=r"memory does not suffice .* lower decode.batch_tokens"):
        searcher().search(sources[:3])
    monkeypatch.undo()
    assert tokens_of(searcher().search(sources[:3])) == tokens_of(expected[:3])


def test_an_error_is_that_of_the_jobs_in_its_slots_alone(sources, expected, monkeypatch):
    """Even where the thread of another job, with options of its own, advances the slots that fail."""
    own, beams = searcher(), []
    advance = pool.advance_slots

    def fail(model, inputs, state, *rest):
        beams.append(state.token.shape[1])
        if beams[-1] == 2:
            raise RuntimeError("broken")
        return advance(model, inputs, state, *rest)

    monkeypatch.setattr(pool, "advance_slots", fail)
    broken = make_job(sources[:3])
    own._pool((shared_options(SearchOptions.from_config(own.config, beam=2)), None)).add(broken)
    assert tokens_of(own.search(sources[:3])) == tokens_of(expected[:3])
    assert str(broken.error) == "broken"
    assert {2, 4} <= set(beams)


def test_a_program_is_compiled_when_more_was_lost_without_it_than_it_costs(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        programs = CompiledPrograms({"weights": jax.numpy.zeros(3)})
        assert not programs.is_worthwhile("small")
        assert not programs.note_use("large", 2.0)  # compiled, which took two seconds
        assert programs.note_use("large", 0.1)
        programs.add_loss("small", 1.5)
        assert not programs.is_worthwhile("small")
        programs.add_loss("small", 0.6)
        assert programs.is_worthwhile("small")
        again = CompiledPrograms({"weights": jax.numpy.zeros(3)})
        other = CompiledPrograms({"weights": jax.numpy.zeros(4)})
        assert again.is_worthwhile("large")
        assert not again.is_worthwhile("small")  # was never compiled
        assert not other.is_worthwhile("large")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
