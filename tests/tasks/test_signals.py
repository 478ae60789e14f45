"""Signals that are held back: none is lost, and none comes while something is half done."""

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from tasks.signals import SignalsHeld, signal_waits


class Terminated(BaseException):
    """What Prefect's handler of SIGTERM raises, in a test's words."""


@pytest.fixture(autouse=True)
def as_in_a_flow() -> Iterator[None]:
    def terminate(_number: int, _frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_takes_effect_where_signals_are_heard_again() -> None:
    done = []
    with SignalsHeld("a test") as signals:
        signal.raise_signal(signal.SIGINT)
        assert signal_waits()
        done.append("begun")
        with pytest.raises(KeyboardInterrupt), signals.heard():
            done.append("used")
        assert not signal_waits()
        done.append("ended")
    assert done == ["begun", "ended"]


def test_a_signal_in_the_heard_block_comes_at_once_and_one_after_it_waits() -> None:
    done = []
    with pytest.raises(Terminated), SignalsHeld("a test") as signals:  # noqa: PT012 - where it is raised is the test
        with pytest.raises(KeyboardInterrupt), signals.heard():
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        done.append("ended")
    assert done == ["ended"]


def test_a_second_signal_is_not_lost() -> None:
    with pytest.raises(Terminated) as raised, SignalsHeld("a test"):  # noqa: PT012 - the same
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
    assert isinstance(raised.value.__context__, KeyboardInterrupt)
    assert not signal_waits()


def test_an_error_in_the_block_is_told_beside_the_signal_and_the_handlers_are_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(KeyboardInterrupt) as raised, SignalsHeld("a test"):  # noqa: PT012 - the same
        signal.raise_signal(signal.SIGINT)
        raise ZeroDivisionError
    assert isinstance(raised.value.__context__, ZeroDivisionError)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_who_presses_ctrl_c_is_told_what_is_waited_for(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt), SignalsHeld("the launch of an instance"):
        signal.raise_signal(signal.SIGINT)
    assert capfd.readouterr().err == "SIGINT has come, and waits for the launch of an instance\n"


def test_in_another_thread_there_is_nothing_to_hold() -> None:
    seen = []

    def look() -> None:
        with SignalsHeld("a test") as signals, signals.heard():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
