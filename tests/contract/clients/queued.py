"""The queue by fal's Python client, told as lines of JSON: `python queued.py KIND STORY SETTINGS`.

For tests/contract/test_official_queue.py. KIND is sync or async. STORY is `free`, calls of an app with slots to spare,
all at once; `line`, calls of an app whose one slot is taken, one after the other; or `conflict`, which takes a minute.
Each thing that is told is `{"name": …, "told": …}`, or `"error"` in place of `"told"`.
"""

import asyncio
import concurrent.futures
import dataclasses
import json
import sys
import time
import uuid

import fal_client

ZOO, SINGLE = "zoo/zoo", "zoo/single"


def tell(name, **what):
    sys.stdout.write(json.dumps({"name": name, **what}) + "\n")  # in one piece: the others write, too
    sys.stdout.flush()


def told(status):
    return [type(status).__name__, dataclasses.asdict(status)]


def error_of(error):
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": str(error),
        "is_client_error": isinstance(error, fal_client.client.FalClientError),
        "status": getattr(error, "status_code", None),
        "error_type": getattr(error, "error_type", None),
        "request_id": getattr(error, "request_id", None),
    }


# Each step is a generator that yields what its client is to do, as (name of a function, arguments), and gets the result.
# So there is one text for both colours; the shells below it call the official client and nothing else.


def handle(settings):
    handle = yield "submit", [f"{ZOO}/async", {"n": 3, "pause": 0.2}], {}
    yield "status", [handle], {}
    events = yield "iter_events", [handle], {"with_logs": True}
    result = yield "get", [handle], {}
    return {"id": handle.request_id, "events": [told(event) for event in events], "result": result}


def by_id(settings):
    handle = yield "submit", [f"{ZOO}/async", {"n": 1}], {}
    result = yield "client.result", [f"{ZOO}/async", handle.request_id], {}
    status = yield "client.status", [f"{ZOO}/async", handle.request_id], {"with_logs": True}
    return {"result": result, "status": told(status)}


def subscribe(settings):
    return (yield "subscribe", [ZOO, {"n": 2}], {})


def subscribe_with_updates(settings):
    enqueued, updates = [], []
    seen = f"{settings['folder']}/seen-{uuid.uuid4()}"

    def on_queue_update(one):
        updates.append(told(one))
        if isinstance(one, fal_client.InProgress):
            open(seen, "w").close()  # now it may go on

    options = {"with_logs": True, "on_enqueue": enqueued.append, "on_queue_update": on_queue_update}
    result = yield "subscribe", ["line/teller/watched", {"n": 3, "seen": seen}], options
    return {"enqueued": enqueued, "updates": updates, "result": result}


def logs(settings):
    updates = []
    options = {"with_logs": True, "on_queue_update": lambda one: updates.append(told(one))}
    yield "subscribe", ["line/teller", {"n": 4}], options
    return updates


def sub_path(settings):
    return (yield "subscribe", [f"{ZOO}/def", {"n": 4}], {})


def path_argument(settings):
    return (yield "subscribe", [ZOO, {"n": 5}], {"path": "/def"})


def namespace(settings):
    return (yield "subscribe", ["workflows/zoo/flow/sub/path", {}], {})


def alias(settings):
    return (yield "subscribe", ["fal-ai/counter", {"n": 1}], {})


def hint_and_priority(settings):
    return (yield "subscribe", [f"{ZOO}/request", {}], {"hint": "runner-7", "priority": "low"})


def wrong_input(settings):
    return (yield "subscribe", [ZOO, {"n": -1}], {})


def field_refused(settings):
    return (yield "subscribe", [f"{ZOO}/field", {}], {})


def raises(settings):
    return (yield "subscribe", [f"{ZOO}/raise-first", {}], {})


def raises_later(settings):
    return (yield "subscribe", [f"{ZOO}/raise-later", {}], {})


def failed_status(settings):
    handle = yield "submit", [f"{ZOO}/raise-first", {}], {}
    events = yield "iter_events", [handle], {}
    return told(events[-1])


def unknown_app(settings):
    return (yield "submit", ["zoo/nobody", {}], {})


def unknown_request(settings):
    return (yield "client.status", [ZOO, "0f8fad5b-d9cb-469f-a165-70867728950e"], {})


def cancel(settings):
    handle = yield "submit", [f"{ZOO}/async", {"n": 10_000, "pause": 0.02, "name": settings["name"]}], {}
    while type((yield "status", [handle], {})).__name__ != "InProgress":
        yield "sleep", [0.05], {}
    yield "cancel", [handle], {}
    events = yield "iter_events", [handle], {}
    tell("cancelled status", told=told(events[-1]))
    try:
        yield "get", [handle], {}
    except fal_client.client.FalClientHTTPError as error:
        tell("cancelled result", error=error_of(error))
    return (yield "cancel", [handle], {})


def webhook(settings):
    handle = yield "submit", [ZOO, {"n": 2}], {"webhook_url": settings["webhook"]}
    return {"id": handle.request_id, "result": (yield "get", [handle], {})}


def private_webhook(settings):
    return (yield "submit", [ZOO, {}], {"webhook_url": "https://10.0.0.1/hook"})


def conflict(settings):
    return (yield "subscribe", [f"{ZOO}/refuse", {}], {})


def in_line(settings):
    """While the one slot is taken."""
    low = yield "submit", [SINGLE, {"name": "low"}], {"priority": "low"}
    normal = yield "submit", [SINGLE, {"name": "normal"}], {"priority": "normal"}
    waiting, ended = [], []
    for one in (low, normal):
        waiting.append(told((yield "status", [one], {})))
    for one in (low, normal):
        yield "cancel", [one], {}
        ended.append(told((yield "status", [one], {})))
    return {"waiting": waiting, "ended": ended}


def start_timeout(settings):
    handle = yield "submit", [SINGLE, {"name": "too late"}], {"start_timeout": 1.2}
    return (yield "get", [handle], {})


def client_timeout(settings):
    for seconds in (1.2, 12):
        options = {"client_timeout": seconds, "start_timeout": 600}
        try:
            return (yield "subscribe", [SINGLE, {"name": "gave up"}], options)
        except fal_client.client.FalClientTimeoutError as error:
            if error.request_id:  # else not even the submit was answered in that time
                raise


def after_client_timeout(settings):
    status = yield "client.status", [SINGLE, settings["request_id"]], {}
    return told(status)


FREE = [
    handle, by_id, subscribe, subscribe_with_updates, logs, sub_path, path_argument, namespace, alias, hint_and_priority,
    wrong_input, field_refused, raises, raises_later, failed_status, unknown_app, unknown_request, cancel, webhook,
    private_webhook,
]  # fmt: skip


def call(what, arguments, options):
    if what == "sleep":
        return time.sleep(*arguments)
    if what.startswith("client."):
        return getattr(fal_client, what.partition(".")[2])(*arguments, **options)
    if what in {"submit", "subscribe"}:
        return getattr(fal_client, what)(arguments[0], arguments=arguments[1], **options)
    answer = getattr(arguments[0], what)(**options)
    return list(answer) if what == "iter_events" else answer


async def call_async(what, arguments, options):
    if what == "sleep":
        return await asyncio.sleep(*arguments)
    if what.startswith("client."):
        return await getattr(fal_client, what.partition(".")[2] + "_async")(*arguments, **options)
    if what in {"submit", "subscribe"}:
        return await getattr(fal_client, f"{what}_async")(arguments[0], arguments=arguments[1], **options)
    answer = getattr(arguments[0], what)(**options)
    return [event async for event in answer] if what == "iter_events" else await answer


def take(step, settings):
    steps = step(settings)
    try:
        wish = next(steps)
        while True:
            try:
                result = call(*wish)
            except Exception as error:
                wish = steps.throw(error)
            else:
                wish = steps.send(result)
    except StopIteration as end:
        tell(step.__name__, told=end.value)
    except Exception as error:
        tell(step.__name__, error=error_of(error))
        return error


async def take_async(step, settings):
    steps = step(settings)
    try:
        wish = next(steps)
        while True:
            try:
                result = await call_async(*wish)
            except Exception as error:
                wish = steps.throw(error)
            else:
                wish = steps.send(result)
    except StopIteration as end:
        tell(step.__name__, told=end.value)
    except Exception as error:
        tell(step.__name__, error=error_of(error))
        return error


def main(story, settings):
    if story == "free":
        with concurrent.futures.ThreadPoolExecutor(len(FREE)) as threads:
            list(threads.map(lambda step: take(step, settings), FREE))
    elif story == "conflict":
        take(conflict, settings)
    else:
        take(in_line, settings)
        take(start_timeout, settings)
        error = take(client_timeout, settings)
        take(after_client_timeout, {**settings, "request_id": error.request_id})


async def main_async(story, settings):
    if story == "free":
        await asyncio.gather(*(take_async(step, settings) for step in FREE))
    else:
        await take_async(in_line, settings)
        await take_async(start_timeout, settings)
        error = await take_async(client_timeout, settings)
        await take_async(after_client_timeout, {**settings, "request_id": error.request_id})


kind, story, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if kind == "sync":
    main(story, settings)
else:
    asyncio.run(main_async(story, settings))
