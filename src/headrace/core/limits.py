"""Every bound there is, with its unit and its reason. Nothing in Headrace grows without one of these.

Units come last in the names: `_bytes`, `_s` (seconds), `_max` (a count). Each can be set as `limits.NAME` in
`headrace.toml`; the defaults are what the promises in the docs are tested with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.core.frames import weight_of

#: What one event costs beyond its text, in bytes: a Python bytes object, its place in a list, its framing.
#: Counting it keeps a million two-byte events from passing as two megabytes.
EVENT_OVERHEAD_BYTES = 64


def cost_of(texts: Sequence[bytes]) -> int:
    """Return what events count against a window or a log. Node and runner must agree."""
    return sum(map(len, texts)) + EVENT_OVERHEAD_BYTES * len(texts)


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one node."""

    # --- what a caller may send -------------------------------------------------------------------------
    #: Bytes of one request body. fal's inputs are prompts and URLs; files travel as uploads.
    body_bytes_max: int = 10 * 1024 * 1024
    #: Nesting of the JSON body. Deeper input breaks recursive parsers further in.
    body_depth_max: int = 100
    #: Bytes of the request target (path and query).
    target_bytes_max: int = 8 * 1024
    #: Bytes of one header line, of all of them, and their number.
    header_bytes_max: int = 16 * 1024
    headers_bytes_max: int = 32 * 1024
    headers_max: int = 100
    #: Requests on one connection that may wait for the answers to earlier ones. They arrive by the thousand in one
    #: read, and each costs some 3 KiB; real clients pipeline none.
    pipelined_max: int = 32
    #: Seconds a connection may take to finish its headers: the answer to slowloris. nginx waits 60, we 10.
    header_timeout_s: float = 10.0
    #: Seconds without one new body byte before an upload is given up.
    body_timeout_s: float = 30.0
    #: Seconds an idle keep-alive connection stays open. nginx's default.
    idle_timeout_s: float = 75.0
    #: Seconds we read on, and throw away, after refusing a request that was not read to its end.
    linger_s: float = 1.0
    #: Open connections of one node; the next is closed at once. At about 10 KiB each this is some 100 MiB.
    connections_max: int = 10_000

    # --- waiting ----------------------------------------------------------------------------------------
    #: Requests of one app that may wait for a slot; the next gets 429 with Retry-After.
    waiting_max: int = 1_000
    #: Seconds a request may wait for a slot when the caller names no start timeout.
    slot_wait_s: float = 600.0
    #: Seconds we hold a stream's headers, waiting for its first event, so that an early failure can still be
    #: a real HTTP status. Also the time of the first heartbeat: proxies give up on silence after 15 to 60.
    headers_hold_s: float = 10.0
    #: The same when the caller gave a start timeout: held until a slot or that deadline, at most this.
    headers_hold_start_timeout_s: float = 30.0
    #: Seconds between heartbeats. fal's JavaScript client documents 15 between chunks.
    heartbeat_s: float = 10.0
    #: Seconds an input check may take in a runner whose loop is busy.
    check_timeout_s: float = 30.0

    # --- events -----------------------------------------------------------------------------------------
    #: Bytes of one event. An image belongs behind a URL; fal-js parses large events in quadratic time.
    event_bytes_max: int = 1024 * 1024
    #: Bytes of events (by `cost_of`) a runner may make beyond what the pacing reader has taken: the window
    #: of credit. About 1,700 token events.
    window_bytes: int = 256 * 1024
    #: Bytes `emit` may run ahead of the window on the event loop, where it cannot wait; then it raises.
    emit_ahead_bytes_max: int = 4 * 1024 * 1024
    #: Bytes of the result of a plain function, which no stream carries: fal's clients take it in one JSON answer.
    result_bytes_max: int = 32 * 1024 * 1024
    #: The replay log of one request: bytes (by `cost_of`) and events; the last event is always kept.
    replay_bytes_max: int = 1024 * 1024
    replay_events_max: int = 16_384
    #: Seconds for which an attempt at a queued request is a node's own; it prolongs that while it works.
    lease_s: float = 30.0
    #: Seconds between two looks for queued requests that are old enough to be forgotten.
    expire_every_s: float = 10.0
    #: Requests of one app that may be queued; the next gets 429.
    queue_max: int = 100_000
    #: Seconds a queued request waits for an app that the node does not serve, before it fails: a day, so that a
    #: start with the wrong files costs nothing. Counted from the start, or from the reload that took the app away.
    unserved_wait_s: float = 86_400.0
    #: Seconds a queued request is kept once it has ended, with its result, its events and its log: fal's hour.
    result_age_s: float = 3_600.0
    #: The same for one with a large result, and from how many bytes on one is large: fal's 6 minutes and 10 KB.
    large_result_age_s: float = 360.0
    large_result_bytes: int = 10_000
    #: Bytes in use in the store's file, beyond which the oldest ended requests go before their time.
    store_bytes_max: int = 10 * 1024 * 1024 * 1024
    #: Bytes of events, and of log lines, that the store keeps of one queued request; the oldest go. As much as
    #: `replay_bytes_max` keeps in memory.
    stored_events_bytes_max: int = 1024 * 1024
    stored_logs_bytes_max: int = 1024 * 1024
    #: Seconds a webhook that was given up can be sent after all, with its request: a week.
    dead_letter_age_s: float = 7 * 86_400.0
    #: Seconds for which a request that has ended can be watched again, and how many such are kept at most.
    replay_s: float = 60.0
    replays_max: int = 4_096
    #: Bytes of events (by `cost_of`) that all logs of a node may keep for late readers. Beyond it those of
    #: the oldest requests give up what their readers have taken.
    replays_bytes_max: int = 256 * 1024 * 1024
    #: Bytes of events (by `cost_of`) that all requests of a node may hold in memory: 1,000 readers that stopped at
    #: 1 MiB each. Beyond it no request is taken, and the largest hoards are ended until there is room.
    events_bytes_max: int = 1024 * 1024 * 1024
    #: Bytes of request bodies over 64 KiB, and of results over `event_bytes_max`, that a node may hold at once;
    #: one key may have half of them.
    bodies_bytes_max: int = 512 * 1024 * 1024
    #: Kernel send buffer of one client connection. Left alone it takes 4 MiB for a reader that never reads.
    socket_buffer_bytes: int = 256 * 1024
    #: Seconds a reader may take no byte at all before its stream is ended.
    stall_timeout_s: float = 30.0
    #: Seconds an ended stream may take to flush its error event before the connection is aborted.
    flush_timeout_s: float = 5.0
    #: Seconds between the error event and the FIN. Cut at once, Node lost the event in 6 of 8 tries.
    cut_delay_s: float = 0.05

    # --- files ------------------------------------------------------------------------------------------
    #: Bytes of one file: of one that a model makes, of an upload, of what the URL in an input leads to.
    file_bytes_max: int = 256 * 1024 * 1024
    #: Bytes of all files, and their number; beyond it the oldest go. 250,000 files are some 100 MiB of folders.
    files_bytes_max: int = 10 * 1024 * 1024 * 1024
    files_max: int = 250_000
    #: Seconds a file is kept. A caller may ask for less (`X-Fal-Object-Lifecycle-Preference`), never for more.
    files_keep_s: float = 7 * 24 * 3600.0
    #: Seconds between two looks for files that are too old or too much.
    files_sweep_every_s: float = 60.0
    #: Bytes that files leave free on their disk: the queue is on it, too.
    files_spare_bytes: int = 256 * 1024 * 1024
    #: Seconds to fetch what a URL in an input leads to, redirects and the whole body included.
    file_fetch_timeout_s: float = 60.0

    # --- uploads ----------------------------------------------------------------------------------------
    #: Uploads of one key that may be unfinished; the next gets 429.
    uploads_max: int = 256
    #: Bodies of files of one key that may come in at once; the next gets 429. Each takes 512 KiB of
    #: `bodies_bytes_max` however slowly it comes, so that those of one key have a quarter of that at most.
    uploads_coming_max: int = 256
    #: Bytes of all uploads that are no file yet, parts and what is coming in; one key may have half of them.
    uploads_bytes_max: int = 4 * 1024 * 1024 * 1024
    #: Bytes that a part counts as at least: it is a file of its own, and an entry in memory.
    upload_part_bytes_min: int = 64 * 1024
    #: Parts of one file. S3's own bound, so that clients made for it fit.
    upload_parts_max: int = 10_000
    #: Seconds an upload may stay unfinished without a byte; then its address takes no more, and its parts go.
    upload_idle_s: float = 3_600.0

    # --- the link to a runner ---------------------------------------------------------------------------
    #: Bytes of payload in one frame; anything larger travels in pieces.
    frame_bytes_max: int = 64 * 1024
    #: Bytes of all unfinished messages on one link. A runner sends no more large ones at once than fit, so it must
    #: hold one result: `result_bytes_max`, plus what its head and pieces cost.
    message_bytes_max: int = 40 * 1024 * 1024

    # --- runners ----------------------------------------------------------------------------------------
    #: Seconds a file may take to import. Heavy libraries on a cold disk take minutes.
    load_timeout_s: float = 600.0
    #: Seconds a cancelled request may go on before its runner is retired.
    cancel_grace_s: float = 5.0
    #: Seconds between TERM and KILL for a runner that should leave.
    kill_grace_s: float = 5.0
    #: Seconds until a runner that failed to start is tried again: first, and at most (doubling).
    restart_backoff_s: float = 1.0
    restart_backoff_max_s: float = 60.0
    #: Deaths within `crash_window_s`, without one request served between them, that count as a failing start: a
    #: model that dies of its first request would otherwise be loaded again and again.
    crashes_max: int = 5
    crash_window_s: float = 60.0
    #: Seconds a runner that is ready may leave a PING unanswered. Long calls that hold the interpreter look alike.
    runner_silence_s: float = 60.0
    #: Seconds a runner may be stopped (SIGSTOP, a full-screen debugger) before it is taken for lost.
    runner_stopped_s: float = 5.0
    #: Bytes of one line a runner prints; the rest of the line is dropped and counted.
    output_line_bytes_max: int = 16 * 1024
    #: Bytes a second that each of a runner's two outputs, and each of its requests, may put into a log; more is
    #: dropped and counted.
    output_bytes_per_s_max: int = 256 * 1024
    #: Bytes of one queued request's log lines that may wait for the store: four seconds' worth, for a slow disk.
    log_bytes_waiting_max: int = 1024 * 1024

    # --- stopping ---------------------------------------------------------------------------------------
    #: Seconds running requests may finish in after SIGTERM, before they are ended with `shutting_down`.
    drain_s: float = 60.0

    def __post_init__(self) -> None:
        """Raise `ValueError` where one bound does not leave room for another."""
        largest = max(self.body_bytes_max, self.result_bytes_max, self.event_bytes_max)
        needed = weight_of(largest + self.headers_bytes_max, self.frame_bytes_max)
        if self.message_bytes_max < needed:
            raise ValueError(f"message_bytes_max: a body or a result must fit; set at least {needed}")
        if self.uploads_bytes_max < 2 * self.file_bytes_max:
            raise ValueError(f"uploads_bytes_max: a file must fit twice; set at least {2 * self.file_bytes_max}")

    @property
    def ahead_bytes_max(self) -> int:
        """Bytes of events (by `cost_of`) a runner can be ahead of a pacing reader: window, `emit`, one more."""
        return self.window_bytes + self.emit_ahead_bytes_max + self.event_bytes_max + EVENT_OVERHEAD_BYTES
