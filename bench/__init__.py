"""The benchmark rig: what an event costs us and our peers, side by side, in one run on one machine.

    workloads.py   the model every server serves: one class of generators
    peers/         one small application per server: ours, FastAPI, LitServe, and the raw bound
    servers.py     starts and stops a server under test, pinned to its core
    load.py        the load generator: opens streams, counts events, times first events
    measure.py     CPU and memory of a process tree; the windows in which both are taken
    sdk.py         what an event costs our client and fal-client's stack
    queued.py      what only ours has: submits that are safe on the disk, and their first events
    attach.py      one stream and all who read it
    store.py       the store alone, without a server
    report.py      rows, ratios and bars as text, JSON and the page docs/reference/performance.md
    run.py         the command line behind `make bench`

Only ratios taken in one run mean anything; a microsecond here says nothing about a microsecond elsewhere.
"""
