"""What an event costs the caller: CPU of our client and of fal-client's stack (httpx with httpx-sse), in one run.

A feeder process sends one fast stream over plain http, many small chunks in pieces of 16 KiB, to each client in turn;
the clients take turns for several rounds and the cheapest round of each counts. Only the ratios mean anything.

    python -m bench.sdk
"""

import asyncio
import json
import multiprocessing
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

import httpx
import httpx_sse

from headrace import AsyncClient, Client

EVENTS = 40_000
ROUNDS = 5
PIECE_BYTES = 16 * 1024
#: Our client must cost at most a quarter, or a sixth, of the stack that fal-client is made of.
BARS = {"sync": 4.0, "async": 6.0}

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def wire() -> bytes:
    """Return the stream: events of about 90 bytes, a chunk each."""
    text = '{"index": %d, "token": " river", "logprob": -0.1234567, "text": "down the headrace"}'
    events = (b"data: %b\n\n" % (text % index).encode() for index in range(EVENTS))
    return b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in events) + b"0\r\n\r\n"


def feed(ready: Connection) -> None:
    """Answer every request with the stream, one connection at a time, for ever."""
    stream = wire()
    pieces = [stream[start : start + PIECE_BYTES] for start in range(0, len(stream), PIECE_BYTES)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            connection, _ = listener.accept()
            with connection:
                request = b""
                while b"\r\n\r\n" not in request:
                    request += connection.recv(65536)
                connection.sendall(HEAD)
                for piece in pieces:
                    connection.sendall(piece)
                while connection.recv(65536):  # until the client leaves
                    pass


@contextmanager
def running_feeder() -> Iterator[str]:
    """Run the feeder in a process of its own; give its URL."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=feed, args=(theirs,), daemon=True)
    process.start()
    try:
        if not ours.poll(30):
            raise TimeoutError("the feeder did not start")
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.kill()
        process.join()


def headrace_sync(url: str) -> int:
    with Client(url, "bench:key") as client:
        return sum(1 for _ in client.stream("bench/app"))


def headrace_async(url: str) -> int:
    async def main() -> int:
        count = 0
        async with AsyncClient(url, "bench:key") as client:
            async for _ in client.stream("bench/app"):
                count += 1
        return count

    return asyncio.run(main())


def httpx_sync(url: str) -> int:
    """Read as fal-client reads."""
    with (
        httpx.Client(timeout=None) as client,
        httpx_sse.connect_sse(client, "POST", f"{url}/bench/app/stream", json={}) as source,
    ):
        return sum(1 for event in source.iter_sse() if json.loads(event.data))


def httpx_async(url: str) -> int:
    """Read as fal-client reads."""

    async def main() -> int:
        count = 0
        async with (
            httpx.AsyncClient(timeout=None) as client,
            httpx_sse.aconnect_sse(client, "POST", f"{url}/bench/app/stream", json={}) as source,
        ):
            async for event in source.aiter_sse():
                json.loads(event.data)
                count += 1
        return count

    return asyncio.run(main())


CLIENTS: dict[str, Callable[[str], int]] = {
    "headrace, sync": headrace_sync,
    "httpx + httpx-sse, sync": httpx_sync,
    "headrace, async": headrace_async,
    "httpx + httpx-sse, async": httpx_async,
}


def measure(rounds: int = ROUNDS) -> list[dict]:
    """Return a row for each client: `name`, `us_per_event` (CPU of this process), `ratio` and `bar`.

    `ratio` says how many times our client's cost the row's is: 1 for ours. `bar` is what it must reach, None for ours.
    """
    cheapest = dict.fromkeys(CLIENTS, float("inf"))
    with running_feeder() as url:
        for _ in range(rounds):
            for name, read in CLIENTS.items():
                before = time.process_time()
                count = read(url)
                cost = time.process_time() - before
                if count != EVENTS:
                    raise RuntimeError(f"{name} saw {count} of {EVENTS} events")
                cheapest[name] = min(cheapest[name], cost / EVENTS * 1e6)
    rows = []
    for name, cost in cheapest.items():
        colour = name.rsplit(" ", 1)[1]
        ours = name.startswith("headrace")
        ratio = cost / cheapest[f"headrace, {colour}"]
        rows.append({"name": name, "us_per_event": cost, "ratio": ratio, "bar": None if ours else BARS[colour]})
    return rows


def main() -> None:
    print(f"{'client':26} {'CPU µs/event':>12} {'ratio':>7}  bar")
    for row in measure():
        bar = "" if row["bar"] is None else f"≥ {row['bar']:g}"
        print(f"{row['name']:26} {row['us_per_event']:12.2f} {row['ratio']:6.1f}×  {bar}")


if __name__ == "__main__":
    main()
