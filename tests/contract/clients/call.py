"""One call by fal's Python client, told as lines of JSON: `python call.py KIND CALL`, for tests/support/official.py.

KIND is run, stream, run_async or stream_async; CALL has `endpoint`, `input`, and maybe `options` and `leave_after`.
"""

import asyncio
import json
import sys

import fal_client


def tell(**line):
    print(json.dumps(line), flush=True)


def linger():
    """Stay alive until the test has seen what leaving did; the end of this process would close the stream too."""
    tell(left=True)
    sys.stdin.read()


def stream(call):
    events = fal_client.stream(call["endpoint"], arguments=call["input"], **call["options"])
    for count, item in enumerate(events, 1):
        tell(item=item)
        if count == call["leave_after"]:
            break
    events.close()


async def stream_async(call):
    events = fal_client.stream_async(call["endpoint"], arguments=call["input"], **call["options"])
    count = 0
    async for item in events:
        tell(item=item)
        count += 1
        if count == call["leave_after"]:
            break
    await events.aclose()
    if call["leave_after"]:
        await asyncio.to_thread(linger)


def main(kind, call):
    if kind == "run":
        tell(result=fal_client.run(call["endpoint"], arguments=call["input"], **call["options"]))
    elif kind == "run_async":
        answer = fal_client.run_async(call["endpoint"], arguments=call["input"], **call["options"])
        tell(result=asyncio.run(answer))
    elif kind == "stream":
        stream(call)
        if call["leave_after"]:
            linger()
    else:
        asyncio.run(stream_async(call))


try:
    main(sys.argv[1], {"options": {}, "leave_after": None, **json.loads(sys.argv[2])})
except Exception as error:
    tell(
        error={
            "type": f"{type(error).__module__}.{type(error).__qualname__}",
            "message": str(error),
            "is_client_error": isinstance(error, fal_client.client.FalClientError),
            "status": getattr(error, "status_code", None),
            "error_type": getattr(error, "error_type", None),
        }
    )
