"""The bounds of the SQLite store, each with its unit and its reason."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Durability(enum.Enum):
    """What an acknowledgement is worth (SQLite's `synchronous`)."""

    FULL = "full"  # it survives a power cut: one sync for each group of operations
    FAST = "fast"  # it survives the death of the process; a power cut may take the last second, and nothing else


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """How one store behaves. The defaults are what the promises in the docs are tested with."""

    durability: Durability = Durability.FULL

    # --- waiting ----------------------------------------------------------------------------------------
    #: Operations that may wait for the writer, and bytes in them: some seconds' worth on a slow disk.
    waiting_max: int = 4_096
    waiting_bytes_max: int = 128 * 1024 * 1024
    #: The part of both that submits may fill. The rest is for requests that were taken already: a flood of new
    #: ones must not keep a result from being stored.
    submits_share: float = 0.5
    #: Seconds until a caller is told that the store does not answer. A disk that syncs for longer is broken.
    answer_timeout_s: float = 30.0
    #: Seconds `close` waits for operations that are under way.
    close_timeout_s: float = 10.0
    #: Operations, and bytes in them, that share one commit: a large result holds up one group, not all.
    group_max: int = 512
    group_bytes_max: int = 8 * 1024 * 1024
    #: Threads that read, each with a connection, and reads that may wait for them.
    readers: int = 3
    reads_waiting_max: int = 2_048

    # --- the file ---------------------------------------------------------------------------------------
    #: Bytes written (by estimate) between two checkpoints, which are made beside the commits.
    checkpoint_bytes: int = 8 * 1024 * 1024
    #: Bytes of the write-ahead log beyond which the next commit waits until it is emptied. It begins anew only
    #: when all of it is in the database, and while commits never pause, checkpoints are always a little behind.
    wal_bytes_max: int = 64 * 1024 * 1024
    #: Seconds between two syncs of the write-ahead log at durability `fast`: what a power cut may take. As Redis.
    sync_every_s: float = 1.0
    #: Bytes of page cache of the writer; each reader has a quarter. SQLite's 2 MiB hold no index of a million ids.
    cache_bytes: int = 32 * 1024 * 1024

    # --- what one request may leave -----------------------------------------------------------------------
    #: Events of one request (by `limits.cost_of`): as much as `limits.replay_bytes_max` keeps in memory.
    events_bytes_max: int = 1024 * 1024
    #: Log lines of one request (by `limits.cost_of` of their JSON).
    logs_bytes_max: int = 1024 * 1024

    # --- retention --------------------------------------------------------------------------------------
    #: Seconds an ended request is kept: fal's hour, and fal's 6 minutes for results of 10 KB or more.
    result_age_s: float = 3_600.0
    large_result_age_s: float = 360.0
    large_result_bytes: int = 10_000
    #: Bytes in use in the file, beyond which the oldest ended requests go before their time.
    bytes_max: int = 10 * 1024 * 1024 * 1024
    #: Bytes one call of `expire` removes at most, but for a single larger request.
    expire_bytes_max: int = 8 * 1024 * 1024
    #: Seconds a webhook that was given up can be revived.
    dead_letter_age_s: float = 7 * 86_400.0
