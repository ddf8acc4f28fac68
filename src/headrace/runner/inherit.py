"""Carries the current call into threads that an author's code starts, as tracing libraries carry a span.

A new thread begins with an empty context, so `emit` in a callback that some library runs in a worker thread
would not know its request. We wrap the two doors through which nearly every thread comes, in this process only.
(`asyncio.to_thread` copies the context by itself.)
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from headrace.app.context import CURRENT, Call, Cancelled


def install() -> None:
    """Wrap `Thread.start` and `ThreadPoolExecutor.submit`, and keep a cancelled thread from printing."""
    threading.Thread.start = _starting(threading.Thread.start)  # type: ignore[method-assign, assignment]
    ThreadPoolExecutor.submit = _submitting(ThreadPoolExecutor.submit)  # type: ignore[method-assign]
    threading.excepthook = _quiet_when_cancelled(threading.excepthook)


def _starting(start: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    @functools.wraps(start)
    def start_below_call(thread: threading.Thread) -> None:
        call = CURRENT.get()
        if call is not None:
            thread.run = functools.partial(_run_below, call, thread.run)  # type: ignore[method-assign]
        start(thread)

    return start_below_call


def _run_below(call: Call, run: Callable[[], None]) -> None:
    CURRENT.set(call)  # a thread's context ends with it: nothing to put back
    run()


def _submitting(submit: Callable[..., Future[Any]]) -> Callable[..., Future[Any]]:
    @functools.wraps(submit)
    def submit_below_call(
        pool: ThreadPoolExecutor, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        # The pool may start a worker in here. It outlives this call, so it must not belong to it: only the
        # task does. The task is bound even to no call at all, since a worker may have been started by one.
        call = CURRENT.get()
        token = CURRENT.set(None)
        try:
            return submit(pool, _work_below, call, fn, args, kwargs)
        finally:
            CURRENT.reset(token)

    return submit_below_call


def _work_below(call: Call | None, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    token = CURRENT.set(call)
    try:
        return fn(*args, **kwargs)
    finally:
        CURRENT.reset(token)


def _quiet_when_cancelled(hook: Callable[[Any], Any]) -> Callable[[Any], Any]:
    @functools.wraps(hook)
    def report(args: Any) -> None:
        if not issubclass(args.exc_type, Cancelled):
            hook(args)

    return report
