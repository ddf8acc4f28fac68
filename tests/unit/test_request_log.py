"""A queued request's lines on their way to the store: bounded, and each kept once even where the store stumbles."""

import asyncio
from types import SimpleNamespace

from headrace.core.limits import Limits
from headrace.core.replay import Replay
from headrace.store.port import LogLine, LogPage, StoreBusy, StoreUnavailable
from headrace.supervisor import recorder as recorders
from headrace.supervisor.recorder import Recorder
from headrace.supervisor.request_log import RequestLog


def test_lines_are_handed_over_once_and_in_order():
    async def story() -> tuple[list[LogLine], list[LogLine]]:
        log = RequestLog(Limits())
        news = []
        log.on_news = lambda: news.append(1)
        log.add("a", "STDOUT", 1.0)
        log.add("b", "WARN", 2.0)
        assert 1 == len(news)
        return log.take(), log.take()

    assert ([LogLine("a", "STDOUT", "USER", 1.0), LogLine("b", "WARN", "USER", 2.0)], []) == asyncio.run(story())


def test_lines_that_nobody_takes_are_bounded_and_what_is_left_out_is_told():
    async def story() -> list[str]:
        log = RequestLog(Limits(log_bytes_waiting_max=1_000))
        for _ in range(1_000):
            log.add("x" * 36, "STDOUT", 1.0)  # 100 bytes with what it costs
        return [line.message for line in log.take()]

    messages = asyncio.run(story())

    assert ["x" * 36] * 10 == messages[:-1]
    assert f"printed too much: {990 * 36} characters were dropped" == messages[-1]


class StumblingStore:
    """Keeps lines, and fails as told: before it has done a thing, or after."""

    def __init__(self, *failures: str) -> None:
        self.failures = list(failures)
        self.lines: list[str] = ["from an earlier attempt"]

    async def append_logs(self, _id, _attempt, lines) -> bool:
        failure = self.failures.pop(0) if self.failures else ""
        if failure == "busy":
            raise StoreBusy
        if failure != "before":
            self.lines += [line.message for line in lines]
        if failure:
            raise StoreUnavailable
        return True

    async def logs(self, _id, _first, *, limit) -> LogPage:
        assert limit == 1
        return LogPage(len(self.lines), ())


def test_a_line_is_kept_once_whether_the_store_failed_before_or_after_it_was(monkeypatch):
    monkeypatch.setattr(recorders, "ASK_AGAIN_S", 0.001)

    async def record(store: StumblingStore) -> None:
        log = RequestLog(Limits())
        limits = Limits()
        replay = Replay(bytes_max=limits.replay_bytes_max, events_max=10, ahead_max=limits.ahead_bytes_max)
        live = SimpleNamespace(id="r", attempt=2, replay=replay)
        recorder = Recorder(live, log, store, lambda: None)
        for message in ("one", "two"):
            log.add(message, "STDOUT", 1.0)
        writing = asyncio.create_task(recorder.run())
        await asyncio.sleep(0)
        log.output_ended()
        log.output_ended()
        recorder.end()
        assert await asyncio.wait_for(writing, 10)

    for failures in ((), ("before",), ("after",), ("busy", "before", "after"), ("before", "before")):
        store = StumblingStore(*failures)
        asyncio.run(record(store))
        assert ["from an earlier attempt", "one", "two"] == store.lines, failures
