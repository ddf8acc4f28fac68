"""The SDK's queue against a small one in this process: both shells, what goes over the wire, and what goes wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import threading
import time
from typing import Any

import pytest

from headrace import AsyncClient, Client, Completed, InProgress, Queued
from headrace.client import errors
from tests.support.fake_queue import CUT, RESET, SILENCE, STEPS, WAITING, Step, fake_queue, line_of
from tests.support.scripted import STRETCHES, answer, refusing, scripted
from tests.support.server import eventually
from tests.support.shells import no_credentials  # noqa: F401

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Sync:
    name = "sync"

    @staticmethod
    def call(url: str, name: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        """Call a method of a client."""
        with Client(url, key="id:secret", **(client or {})) as made:
            return getattr(made, name)(*args, **options)

    @staticmethod
    def on_handle(url: str, request_id: str, name: str, **options: Any) -> Any:
        """Call a method of a request's handle; the statuses of `iter_events` come as a list."""
        with Client(url, key="id:secret") as made:
            returned = getattr(made.get_handle("me/app", request_id), name)(**options)
            return list(returned) if name == "iter_events" else returned


class Async:
    name = "async"

    @staticmethod
    def call(url: str, name: str, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> Any:
        async def main() -> Any:
            return await getattr(AsyncClient(url, key="id:secret", **(client or {})), name)(*args, **options)

        return asyncio.run(main())

    @staticmethod
    def on_handle(url: str, request_id: str, name: str, **options: Any) -> Any:
        async def main() -> Any:
            returned = getattr(AsyncClient(url, key="id:secret").get_handle("me/app", request_id), name)(**options)
            return [status async for status in returned] if name == "iter_events" else await returned

        return asyncio.run(main())


both_shells = pytest.mark.parametrize("shell", [Sync, Async], ids=lambda shell: shell.name)
both_ways = pytest.mark.parametrize("stream", [True, 404], ids=["streaming", "asking"])


def lines(*messages: str) -> list[dict[str, str]]:
    return [line_of(message) for message in messages]


#: What `iter_events` gives of a request that goes through `STEPS`: each change once, each line once.
CHANGES = [
    Queued(1),
    InProgress(lines("one")),
    InProgress(lines("two", "three")),
    Completed(lines("four"), {"inference_time": 0.5}),
]


# --- submit -------------------------------------------------------------------------------------------------


@both_shells
def test_a_submit_says_in_headers_what_fal_says_there(shell: Any) -> None:
    with fake_queue() as queue:
        handle = shell.call(
            queue.url, "submit", "me/app/fast", {"a": 1}, path="/deep", hint="h1", priority="low",
            start_timeout=30, webhook_url="https://e.test/w?x=1&y=ü", headers={"X-Own": "o"},
        )  # fmt: skip
        [call] = queue.calls

    assert ("POST", "/queue/me/app/fast/deep") == (call.method, call.path)
    assert {"fal_webhook": "https://e.test/w?x=1&y=ü"} == call.query
    assert {"a": 1} == json.loads(call.body)
    assert ("h1", "low", "30.0", "o", "Key id:secret") == tuple(
        call.headers[name]
        for name in (
            "x-fal-runner-hint", "x-fal-queue-priority", "x-fal-request-timeout", "x-own", "authorization",
        )
    )  # fmt: skip
    base = f"{queue.url}/queue/me/app/requests/r1"
    assert ("r1", base, f"{base}/status", f"{base}/cancel") == (
        handle.request_id,
        handle.response_url,
        handle.status_url,
        handle.cancel_url,
    )
    assert f"{type(handle).__name__}(request_id='r1')" == repr(handle)


@both_shells
def test_no_arguments_are_an_empty_object_and_each_submit_has_a_key_of_its_own(shell: Any) -> None:
    with fake_queue() as queue:
        shell.call(queue.url, "submit", "me/app")
        shell.call(queue.url, "submit", "me/app")
        keys = [call.headers["idempotency-key"] for call in queue.calls]

    assert [b"{}", b"{}"] == [call.body for call in queue.calls]
    assert all(UUID.fullmatch(key) for key in keys)
    assert 2 == len(set(keys)) == len(queue.jobs)


@both_shells
def test_the_callers_own_key_goes_before_ours(shell: Any) -> None:
    with fake_queue() as queue:
        shell.call(queue.url, "submit", "me/app", {}, headers={"idempotency-KEY": "mine"})

    assert ["mine"] == [call.headers["idempotency-key"] for call in queue.calls]


@both_shells
@pytest.mark.parametrize("failure", [RESET, CUT, 503, (429, {"Retry-After": "0"}), (502, {"x-fal-request-id": None})],
                         ids=str)  # fmt: skip
def test_a_submit_that_failed_on_the_way_is_sent_again_under_its_key_and_is_one_request(
    failure: Any, shell: Any
) -> None:
    with fake_queue(failures={"submit": [failure, failure]}) as queue:
        handle = shell.call(queue.url, "submit", "me/app", {"a": 1})

    assert "r1" == handle.request_id
    assert (3, 1, 1) == (
        len(queue.calls),
        len({(call.headers["idempotency-key"], call.body) for call in queue.calls}),
        len(queue.jobs),
    )


@both_shells
def test_a_submit_that_timed_out_is_sent_again_under_its_key(shell: Any) -> None:
    for stretch in STRETCHES:
        with fake_queue(failures={"submit": [SILENCE]}) as queue, contextlib.suppress(errors.Timeout):
            handle = shell.call(queue.url, "submit", "me/app", client={"timeout": 0.3 * stretch})
            if len(queue.calls) == 2:
                break  # else more was lost than the first: the machine took as long as that for an answer

    assert ("r1", 2, 1) == (handle.request_id, len(queue.calls), len(queue.jobs))


@both_shells
@pytest.mark.parametrize(
    ("failure", "type_"),
    [
        (422, errors.InvalidInput),
        (401, errors.AuthenticationError),
        (500, errors.APIError),
        ((504, {"X-Fal-Request-Timeout-Type": "user"}), errors.DeadlinePassed),
        ((503, {"Retry-After": "3600"}), errors.Overloaded),
    ],
    ids=str,
)
def test_a_submit_that_the_server_refused_is_not_sent_again(failure: Any, type_: Any, shell: Any) -> None:
    with fake_queue(failures={"submit": [failure] * 5}) as queue, pytest.raises(type_) as caught:
        shell.call(queue.url, "submit", "me/app")

    assert (1, type_) == (len(queue.calls), type(caught.value))


@both_shells
def test_a_submit_is_sent_three_times_at_most(shell: Any) -> None:
    with fake_queue(failures={"submit": [RESET] * 5}) as queue, pytest.raises(errors.ConnectionFailed):
        shell.call(queue.url, "submit", "me/app")

    assert 3 == len(queue.calls)


@both_shells
def test_a_retry_after_is_waited_for(shell: Any) -> None:
    with fake_queue(failures={"submit": [(429, {"Retry-After": "1"})]}) as queue:
        began = time.monotonic()
        shell.call(queue.url, "submit", "me/app")

    assert 1 <= time.monotonic() - began


@both_shells
@pytest.mark.parametrize(
    "options",
    [{"priority": "high"}, {"start_timeout": 1}, {"start_timeout": float("nan")}, {"headers": {"Host": "x"}}],
    ids=str,
)
def test_what_cannot_be_sent_is_told_before_anything_is(options: Any, shell: Any) -> None:
    with fake_queue() as queue, pytest.raises(ValueError, match=next(iter(options)).rstrip("s")):
        shell.call(queue.url, "submit", "me/app", **options)

    assert [] == queue.calls


# --- addresses ----------------------------------------------------------------------------------------------


@both_shells
@pytest.mark.parametrize(
    "public_url",
    [
        "https://evil.test/queue",
        "http://127.0.0.1:1/queue",
        "http://127.0.0.1.evil.test/queue",
        "http://127.0.0.1:8080@evil.test/queue",
        "http://127.0.0.1:{port}\\@evil.test/queue",
        "//evil.test/queue",
        "/queue",
        "file:///queue",
        "https://127.0.0.1:{port}/queue",
        "http://127.0.0.1:notaport/queue",
        "http://127.0.0.1:{port}/\n",
    ],
)
def test_the_key_follows_no_address_that_is_not_the_servers(public_url: str, shell: Any) -> None:
    with fake_queue() as queue:
        queue.public_url = public_url.replace("{port}", str(queue.port))
        with pytest.raises(errors.ProtocolError, match="the key is not sent there") as caught:
            shell.call(queue.url, "submit", "me/app")

    assert (["submit"], "r1") == (queue.operations(), caught.value.request_id)


@both_shells
def test_a_handle_that_was_made_by_hand_leads_nowhere_else_either(shell: Any) -> None:
    module = __import__("headrace")
    with scripted([answer(200, b"{}")]) as elsewhere, fake_queue() as queue:
        url = f"{elsewhere.url}/me/app/requests/r1"
        cls = module.SyncRequestHandle if shell is Sync else module.AsyncRequestHandle
        client = (Client if shell is Sync else AsyncClient)(queue.url, key="id:secret")
        handle = cls("r1", url, f"{url}/status", f"{url}/cancel", client)
        for method in ("status", "cancel"):
            with pytest.raises(errors.ProtocolError, match="the key is not sent there"):
                called = getattr(handle, method)()
                asyncio.run(called) if shell is Async else None

        assert [] == elsewhere.requests


@both_shells
def test_the_servers_own_name_for_itself_is_followed_by_path(shell: Any) -> None:
    with fake_queue() as queue:
        queue.public_url = f"http://LOCALHOST:{queue.port}/queue"
        result = shell.call(queue.url, "subscribe", "me/app", {"a": 1})

    assert {"sum": 3} == result
    assert {f"127.0.0.1:{queue.port}"} == {call.headers["host"] for call in queue.calls}


@both_shells
@pytest.mark.parametrize("body", [b"{}", b"[1]", b'{"request_id": "r1"}', b'{"request_id": 5}'])
def test_an_answer_that_is_no_queues_is_told_as_one(body: bytes, shell: Any) -> None:
    with scripted([answer(200, body)]) as server, pytest.raises(errors.ProtocolError, match="not a queue's"):
        shell.call(server.url, "submit", "me/app")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "http://127.0.0.1:8080/queue"),
        ({"HEADRACE_URL": "https://gpu.test/base/"}, "https://gpu.test/base/queue"),
        ({"FAL_RUN_HOST": "gpu.test"}, "https://gpu.test/queue"),
        ({"FAL_RUN_HOST": "gpu.test", "FAL_QUEUE_RUN_HOST": "queue.gpu.test"}, "https://queue.gpu.test"),
        ({"FAL_QUEUE_RUN_HOST": "gpu.test:8443/queue"}, "https://gpu.test:8443/queue"),
        ({"HEADRACE_URL": "http://a.test", "FAL_QUEUE_RUN_HOST": "q.test"}, "http://a.test/queue"),
    ],
    ids=str,
)
def test_the_queues_address_is_the_servers_unless_fals_variable_names_one(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert f"{expected}/me/app/requests/r1" == Client().get_handle("me/app/fast", "r1").response_url
    assert f"{expected}/me/app/requests/r1" == AsyncClient().get_handle("me/app/fast", "r1").response_url


@pytest.mark.parametrize("request_id", ["", ".", "..", "a/b", "a?b", "a#b", "ä", "a b", "x" * 300, None])
def test_what_cannot_be_an_id_is_refused(request_id: Any) -> None:
    with pytest.raises(ValueError, match="not a request's id"):
        Client().get_handle("me/app", request_id)


# --- status, result, cancel ---------------------------------------------------------------------------------


@both_shells
def test_a_status_has_all_lines_so_far_and_only_if_asked(shell: Any) -> None:
    with fake_queue() as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = [shell.call(queue.url, "status", "me/app", "r1", with_logs=logs) for logs in (1, 1, 1, 0, 1)]
        queries = [call.query for call in queue.calls[1:]]

    assert [
        Queued(1),
        InProgress(lines("one")),
        InProgress(lines("one", "two", "three")),
        Completed(None, {"inference_time": 0.5}),
        Completed(lines("one", "two", "three", "four"), {"inference_time": 0.5}),
    ] == statuses
    assert [{"logs": text} for text in "11101"] == queries


@both_shells
@both_ways
def test_each_change_comes_once_and_each_line_once_whichever_way_it_is_learned(stream: Any, shell: Any) -> None:
    with fake_queue(stream=stream) as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = shell.on_handle(queue.url, "r1", "iter_events", with_logs=True, interval=0.01)
        operations = queue.operations()

    assert CHANGES == statuses
    asked = [] if stream is True else ["status"] * 4
    assert ["submit", "status/stream", *asked] == operations


@both_shells
def test_without_logs_there_are_none(shell: Any) -> None:
    with fake_queue() as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = shell.on_handle(queue.url, "r1", "iter_events")

    assert [Queued(1), InProgress(None), Completed(None, {"inference_time": 0.5})] == statuses


@both_shells
@pytest.mark.parametrize("stream", [404, 405, 501, "application/json", "text/html"])
def test_a_server_without_a_status_stream_is_asked_and_the_stream_tried_once(stream: Any, shell: Any) -> None:
    with fake_queue(stream=stream) as queue:
        shell.call(queue.url, "submit", "me/app")
        result = shell.on_handle(queue.url, "r1", "get", interval=0.01)

    assert {"sum": 3} == result
    assert ["submit", "status/stream", *["status"] * 4, "result"] == queue.operations()


@both_shells
@pytest.mark.parametrize("after", [0, 1, 2, 3])
def test_a_status_stream_that_is_cut_is_opened_again_without_gap_or_repeat(after: int, shell: Any) -> None:
    with fake_queue(cuts=[after]) as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = shell.on_handle(queue.url, "r1", "iter_events", with_logs=True)

    assert CHANGES == statuses
    assert ["submit", "status/stream", "status/stream"] == queue.operations()


@both_shells
def test_a_status_stream_that_never_works_is_given_up_for_asking(shell: Any) -> None:
    with fake_queue(cuts=[0] * 9) as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = shell.on_handle(queue.url, "r1", "iter_events", with_logs=True, interval=0.01)

    assert CHANGES == statuses
    assert ["submit", *["status/stream"] * 3, *["status"] * 4] == queue.operations()


@both_shells
@both_ways
def test_a_result_is_waited_for(stream: Any, shell: Any) -> None:
    with fake_queue(stream=stream, result=(200, {"ü": [1]})) as queue:
        shell.call(queue.url, "submit", "me/app/fast")
        result = shell.call(queue.url, "result", "me/app/fast", "r1")

    assert {"ü": [1]} == result
    assert "/queue/me/app/requests/r1" == queue.calls[-1].path


@both_shells
def test_a_failed_result_is_the_models_own_error_and_is_fetched_once(shell: Any) -> None:
    detail = [{"loc": ["body", "prompt"], "msg": "too rude", "type": "value_error"}]
    with fake_queue(result=(422, {"detail": detail, "error_type": "validation_error"})) as queue:
        shell.call(queue.url, "submit", "me/app")
        with pytest.raises(errors.InvalidInput) as caught:
            shell.call(queue.url, "result", "me/app", "r1")

    assert (422, detail, "validation_error", "req-1") == (
        caught.value.status_code,
        caught.value.detail,
        caught.value.error_type,
        caught.value.request_id,
    )


@both_shells
def test_a_models_503_is_a_result_but_a_proxys_is_tried_again(shell: Any) -> None:
    proxys = (503, {"x-fal-request-id": None})
    with fake_queue(result=(503, {"detail": "no memory"}), failures={"result": [proxys, RESET, CUT]}) as queue:
        shell.call(queue.url, "submit", "me/app")
        with pytest.raises(errors.Overloaded, match="no memory"):
            shell.call(queue.url, "result", "me/app", "r1")

    assert 4 == queue.operations().count("result")


@both_shells
def test_a_failed_request_is_completed_with_an_error(shell: Any) -> None:
    steps = (Step("COMPLETED", error="HTTP 500", error_type="runner_server_error"),)
    with fake_queue(steps=steps) as queue:
        shell.call(queue.url, "submit", "me/app")
        statuses = shell.on_handle(queue.url, "r1", "iter_events")

    assert [Completed(None, {"inference_time": 0.5}, "HTTP 500", "runner_server_error")] == statuses


@both_shells
def test_a_cancel_is_a_put_and_the_request_is_over(shell: Any) -> None:
    with fake_queue(steps=WAITING) as queue:
        shell.call(queue.url, "submit", "me/app")
        assert shell.call(queue.url, "cancel", "me/app", "r1") is None
        status = shell.call(queue.url, "status", "me/app", "r1")
        with pytest.raises(errors.APIError, match="ALREADY_COMPLETED") as caught:
            shell.on_handle(queue.url, "r1", "cancel")

    cancel = queue.calls[1]
    assert ("PUT", "0", b"") == (cancel.method, cancel.headers["content-length"], cancel.body)
    assert Completed(None, {"inference_time": 0.5}, "cancelled", "client_cancelled") == status
    assert 400 == caught.value.status_code


@both_shells
@pytest.mark.parametrize("call", ["status", "result", "cancel"])
def test_an_unknown_request_is_not_found(call: str, shell: Any) -> None:
    with fake_queue() as queue, pytest.raises(errors.NotFound, match="no such request"):
        shell.call(queue.url, call, "me/app", "unknown")


@both_shells
def test_a_look_at_the_status_survives_a_lost_connection(shell: Any) -> None:
    with fake_queue(failures={"status": [RESET, CUT]}) as queue:
        shell.call(queue.url, "submit", "me/app")

        assert Queued(1) == shell.call(queue.url, "status", "me/app", "r1")


@both_shells
@pytest.mark.parametrize("body", [b"[]", b'{"status": "DANCING"}', b'{"status": null}'])
def test_a_status_that_is_none_is_told(body: bytes, shell: Any) -> None:
    with scripted([answer(200, body)]) as server, pytest.raises(errors.ProtocolError, match="expected a status"):
        shell.call(server.url, "status", "me/app", "r1")


@both_shells
def test_a_server_that_is_gone_is_told_within_seconds(shell: Any) -> None:
    began = time.monotonic()
    with refusing() as url, pytest.raises(errors.ConnectionFailed):
        shell.call(url, "result", "me/app", "r1")

    assert 10 > time.monotonic() - began


# --- subscribe ----------------------------------------------------------------------------------------------


@both_shells
@both_ways
def test_subscribe_tells_on_the_way_and_returns_the_result(stream: Any, shell: Any) -> None:
    told: list[Any] = []
    with fake_queue(stream=stream) as queue:
        result = shell.call(
            queue.url, "subscribe", "me/app", {"a": 1}, with_logs=True, interval=0.01,
            on_enqueue=told.append, on_queue_update=told.append, priority="low", hint="h1", path="fast",
        )  # fmt: skip

    assert {"sum": 3} == result
    assert ["r1", *CHANGES] == told
    first, last = queue.calls[0], queue.calls[-1]
    assert ("/queue/me/app/fast", "low", "h1") == (
        first.path, first.headers["x-fal-queue-priority"], first.headers["x-fal-runner-hint"],
    )  # fmt: skip
    assert ("GET", "/queue/me/app/requests/r1") == (last.method, last.path)
    assert "x-fal-request-timeout" not in first.headers


def test_callbacks_may_be_coroutines() -> None:
    told: list[Any] = []

    async def tell(what: Any) -> None:
        await asyncio.sleep(0)
        told.append(what)

    with fake_queue() as queue:
        Async.call(queue.url, "subscribe", "me/app", on_enqueue=tell, on_queue_update=tell)

    assert ["r1", Queued(1), InProgress(None), Completed(None, {"inference_time": 0.5})] == told


@both_shells
def test_subscribe_raises_the_models_error(shell: Any) -> None:
    with fake_queue(result=(500, {"detail": "boom"})) as queue, pytest.raises(errors.APIError, match="boom"):
        shell.call(queue.url, "subscribe", "me/app")


@both_shells
@both_ways
def test_a_client_timeout_cancels_the_request_and_says_which(stream: Any, shell: Any) -> None:
    for limit_s in (1.5, 15.0):
        with fake_queue(stream=stream, steps=WAITING) as queue:
            began = time.monotonic()
            with pytest.raises(errors.Timeout, match="client_timeout") as caught:
                shell.call(queue.url, "subscribe", "me/app", client_timeout=limit_s)
            took_s = time.monotonic() - began
            if caught.value.request_id is not None:  # else not even the submit was answered in that time
                # The client waits for the answer to it, but not for ever.
                eventually(lambda: "cancel" in queue.operations(), "the cancel")  # noqa: B023 - called here
                break

    assert ("r1", limit_s, True) == (
        caught.value.request_id,
        caught.value.timeout,
        isinstance(caught.value, TimeoutError),
    )
    assert limit_s - 0.1 <= took_s < limit_s + 10
    assert 1 == queue.operations().count("cancel")
    assert str(limit_s) == queue.calls[0].headers["x-fal-request-timeout"]


@both_shells
def test_a_client_timeout_holds_while_the_submit_is_waited_for(shell: Any) -> None:
    with fake_queue(failures={"submit": [SILENCE] * 3}) as queue:
        began = time.monotonic()
        with pytest.raises(errors.Timeout, match="not accepted yet") as caught:
            shell.call(queue.url, "subscribe", "me/app", client_timeout=1.2)
        took_s = time.monotonic() - began
        eventually(queue.operations, "the submit")  # the client has not waited for that

    assert (None, ["submit"]) == (caught.value.request_id, queue.operations())
    assert 10 > took_s


@both_shells
def test_the_callers_start_timeout_stays_and_a_pointless_one_warns(shell: Any) -> None:
    with fake_queue() as queue:
        shell.call(queue.url, "subscribe", "me/app", client_timeout=30, start_timeout=20)
        with pytest.warns(UserWarning, match="start_timeout=40 is over client_timeout=30"):
            shell.call(queue.url, "subscribe", "me/app", client_timeout=30, start_timeout=40)
        sent = [call.headers["x-fal-request-timeout"] for call in queue.calls if call.operation == "submit"]

    assert ["20.0", "40.0"] == sent


@both_shells
@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_client_timeout_that_is_no_time_is_refused(seconds: float, shell: Any) -> None:
    with fake_queue() as queue, pytest.raises(ValueError, match="client_timeout"):
        shell.call(queue.url, "subscribe", "me/app", client_timeout=seconds)

    assert [] == queue.calls


@both_shells
@pytest.mark.parametrize("error", [RuntimeError("mine"), errors.EventTimeout("mine", timeout=1.0)], ids=repr)
def test_a_callbacks_own_error_passes_and_the_request_goes_on(error: Exception, shell: Any) -> None:
    def fail(_: Any) -> None:
        raise error

    with fake_queue() as queue, pytest.raises(type(error), match="mine"):
        shell.call(queue.url, "subscribe", "me/app", on_queue_update=fail, client_timeout=30)

    assert "cancel" not in queue.operations()


def test_a_cancelled_task_leaves_the_request_to_the_server() -> None:
    async def main(url: str) -> None:
        enqueued = asyncio.Event()
        client = AsyncClient(url, key="id:secret")
        task = asyncio.create_task(
            client.subscribe("me/app", on_enqueue=lambda _: enqueued.set(), client_timeout=30)
        )
        await enqueued.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with fake_queue(steps=WAITING) as queue:
        asyncio.run(main(queue.url))

    assert "cancel" not in queue.operations()


# --- leaving ------------------------------------------------------------------------------------------------


def test_leaving_the_statuses_closes_their_connection() -> None:
    async def main(url: str) -> Any:
        async for status in AsyncClient(url, key="id:secret").get_handle("me/app", "r1").iter_events():
            return status

    with fake_queue(steps=WAITING) as queue:
        Sync.call(queue.url, "submit", "me/app")
        threads = threading.active_count()
        with Client(queue.url, key="id:secret") as client:
            statuses = client.get_handle("me/app", "r1").iter_events()
            seen = [next(statuses)]
            statuses.close()
        seen.append(asyncio.run(main(queue.url)))
        until = time.monotonic() + 20
        while threading.active_count() > threads and time.monotonic() < until:
            time.sleep(0.02)

        assert threads >= threading.active_count()
    assert [Queued(3), Queued(3)] == seen


def test_one_client_follows_many_requests_at_once() -> None:
    async def main(url: str) -> list[Any]:
        client = AsyncClient(url, key="id:secret")
        return await asyncio.gather(*(client.subscribe("me/app", {"n": n}) for n in range(20)))

    with fake_queue() as queue:
        results = asyncio.run(main(queue.url))

    assert ([{"sum": 3}] * 20, 20) == (results, len(queue.jobs))
    assert len(STEPS) > 1
