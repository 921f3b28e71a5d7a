"""Progress as a person sees it: bars on a terminal, lines in a log, nothing where nobody listens."""

import io
import threading

import pytest
from rich.console import Console

from nmt.progress import SILENT, Reporter
from nmt.recipes import terminal
from nmt.recipes.terminal import TerminalProgress, table_console


def shown(file: io.StringIO, **options: bool) -> TerminalProgress:
    return TerminalProgress(Console(file=file, width=200, color_system=None, **options))


def test_lines_are_printed_as_they_are() -> None:
    file = io.StringIO()
    progress = TerminalProgress(Console(file=file, width=20))
    progress.say("[bold]a line that is longer than the console is wide[/bold]")
    progress.warn("left out: x")
    assert file.getvalue() == ("[bold]a line that is longer than the console is wide[/bold]\nwarning: left out: x\n")


@pytest.mark.parametrize(("done", "expected", "filled"), [(5, 10, 20), (12, 10, 40), (None, 10, 40)])
def test_a_terminal_has_a_bar_that_is_full_where_nothing_can_be_counted(
    done: int | None, expected: int, filled: int
) -> None:
    file = io.StringIO()
    with shown(file, force_terminal=True).track("cleaning", expected) as task:
        task.update(done, "cleaning: some pairs")
    assert f"cleaning: some pairs {'━' * filled}{' ' * (41 - filled)}" in file.getvalue()


def test_a_terminal_sees_how_much_of_what() -> None:
    file = io.StringIO()
    with shown(file, force_terminal=True).track("de-en", 4000, "sentences") as task:
        task.update(3000)
    assert " 3,000/4,000 sentences " in file.getvalue()


def test_tasks_of_several_threads_share_one_display() -> None:
    file = io.StringIO()
    progress = shown(file, force_terminal=True)
    meet = threading.Barrier(3)

    def work(name: str) -> None:
        with progress.track(name, 2, "pairs") as task:
            meet.wait()
            task.update(2)
            meet.wait()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    meet.wait()
    progress.say("a line above both")
    meet.wait()
    for thread in threads:
        thread.join()
    for text in ("one ━", "two ━", "a line above both\n"):
        assert text in file.getvalue()
    with progress.wait("a spinner, after the others are gone"):
        pass
    assert "a spinner" in file.getvalue()


def test_a_log_gets_a_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 59.0, 61.0, 61.0, 62.0, 130.0, 130.0])
    monkeypatch.setattr(terminal.time, "monotonic", lambda: next(now))
    file = io.StringIO()
    with shown(file).track("cleaning", 200) as task:
        task.update(50)
        task.update(100)
        task.update(110)
        task.update(None, "deduplicating")
    assert file.getvalue() == "cleaning (50%)\ndeduplicating\n"


def test_waiting_is_told_to_a_log_when_it_begins() -> None:
    file = io.StringIO()
    with shown(file).wait("learning the vocabulary"):
        assert file.getvalue() == "learning the vocabulary\n"


@pytest.mark.parametrize("progress", [SILENT, shown(io.StringIO(), quiet=True)])
def test_nobody_is_told(progress: Reporter, capsys: pytest.CaptureFixture[str]) -> None:
    progress.say("a line")
    with progress.track("counting", 3, "bytes") as task, progress.wait("more"):
        task.update(3)
    assert capsys.readouterr() == ("", "")


def test_a_table_in_a_pipe_is_as_wide_as_asked_unless_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert table_console(140).width == 140
    monkeypatch.setenv("COLUMNS", "90")
    assert table_console(140).width == 90
