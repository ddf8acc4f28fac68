"""The rules, and nothing that acts: no I/O, no clock, no threads, no asyncio, the standard library alone.

    errors    who is at fault, which status, whether to retry: one table
    limits    every bound, with its unit and its reason
    routes    app names, endpoint ids, and which path is which view
    spec      what a runner tells of the apps it loaded
    frames    the bytes between a node and its runners
    marks     whose words are whose, on a runner's outputs
    request   the life of one request, as a table of states
    replay    the bounded log of a request's events, which readers are positions in
    scheduler which waiting request gets which runner's slot
    keys      how a key is made, read and compared
    netguard  which URLs and addresses may be called for a caller
    webhook   what a webhook says, how it is signed, when it is tried again
    sse       the event stream format: decoder and encoder
    wire      fal's JSON shapes

Everything here can be tested with literal values. Private: import from `headrace`.
"""
