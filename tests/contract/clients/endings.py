"""Many calls by fal's Python client, all at once: `python endings.py CALLS`, for tests/support/endings.py.

CALLS is a list of `name`, `kind` (run, stream, run_async or stream_async), `endpoint` and `input`. What each was told is
one line of JSON.
"""

import asyncio
import concurrent.futures
import json
import sys

import fal_client


def tell(call, items, result, error):
    said = error and {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": str(error),
        "status": getattr(error, "status_code", None),
        "error_type": getattr(error, "error_type", None),
    }
    line = {"name": call["name"], "kind": call["kind"], "items": items, "result": result, "error": said}
    sys.stdout.write(json.dumps(line) + "\n")  # in one piece: the others write, too


def make(call):
    items, result, error = [], None, None
    try:
        if call["kind"] == "stream":
            for item in fal_client.stream(call["endpoint"], arguments=call["input"]):
                items.append(item)
        else:
            result = fal_client.run(call["endpoint"], arguments=call["input"])
    except Exception as raised:
        error = raised
    tell(call, items, result, error)


async def make_async(call):
    items, result, error = [], None, None
    try:
        if call["kind"] == "stream_async":
            async for item in fal_client.stream_async(call["endpoint"], arguments=call["input"]):
                items.append(item)
        else:
            result = await fal_client.run_async(call["endpoint"], arguments=call["input"])
    except Exception as raised:
        error = raised
    tell(call, items, result, error)


async def make_all_async(calls):
    await asyncio.gather(*map(make_async, calls))


calls = json.loads(sys.argv[1])
with concurrent.futures.ThreadPoolExecutor(len(calls)) as threads:
    list(threads.map(make, [call for call in calls if not call["kind"].endswith("_async")]))
asyncio.run(make_all_async([call for call in calls if call["kind"].endswith("_async")]))
