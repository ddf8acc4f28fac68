"""The durable store of one node, in one SQLite file.

    store        `SqliteStore`: the protocol of `store.port`, method by method
    requests     the life of a request: submit, start, finish, cancel, …
    trail        its events and log lines, in groups
    keeping      webhooks to deliver, and the forgetting of what has ended
    reads        what can be asked
    writer       the one thread that writes; group commit
    checkpoints  the thread that empties the write-ahead log
    syncs        the thread that syncs that log, where commits do not
    readers      the threads that read
    file         the lock on the data directory, connections, migrations
    sql          `queries.sql` and `migrations/*.sql`, loaded
    settings     bounds

No SQLite call is made on an event loop. Private, but for what `headrace.node` needs to build it.
"""

from headrace.store.sqlite.settings import Durability, StoreSettings
from headrace.store.sqlite.store import SqliteStore

__all__ = ["Durability", "SqliteStore", "StoreSettings"]
