"""The parent's side of the runners: who runs, who waits, and what arrives.

    process   one runner's process: start it, relay its output, end it for good
    link      the socket to it: frames down, frames up to the requests they belong to
    streams   a live request: its state, its log, the readers of it
    pool      the runners of one app: slots, waiting requests, restarts
    catalog   what is served now: apps, paths and pools, and their reloading
    dispatch  from a route and a body to a live request

An event's way: `link.data_received` → `LiveRequest.replay.append` → `reader.wake()` → the gateway's writer.
This package knows no HTTP and never imports a user's file.
"""
