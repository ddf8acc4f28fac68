"""The parent's side of the runners: who runs, who waits, and what arrives.

    dispatch   from a route and a body to a live request
    catalog    what is served now: apps, paths and pools, and their reloading
    pool       the requests of one app: who waits, who gets which slot
    fleet      the runners of one app: how many, and each from its start to its end
    runner     one of them, and the watch over its health
    process    its process: start it, end it for good; group: what the kernel says of it
    guardian   ends what the runners started, where the node was killed
    link       the socket to it: frames down, frames up to the requests they belong to
    output     what it prints, to the node's log or its requests'; request_log: a queued one's, until it is stored
    streams    a live request: its state, its log, the readers of it; past: those that have ended, for a while
    deadlines  of requests that have their slots; shared_timer: one timer for many of them
    devices    who has which GPU
    queue      the durable requests; tickets, attempt, recorder: one of them in memory, tried, and kept
    unanswered what a store that fails did not say; outbox: the webhooks that are due
    meters     what is counted

An event's way: `link.data_received` → `LiveRequest.replay.append` → `reader.wake()` → the gateway's writer.
This package knows no HTTP and never imports a user's file.
"""
