"""HTTP in, server-sent events out: the ASGI application and the protocol it runs on.

    app       which path goes where; every failure becomes a JSON answer with a request id
    listen    the sockets, and their opening, draining and closing
    protocol  uvicorn's HTTP protocol on each connection, guarded
    outlet    where one answer's bytes go, and the three ways it can end
    guard     what is refused before a request is looked at: hosts, sizes, target forms
    origins   which web pages may call
    auth      who is calling
    addresses by what address the client knows us
    proxy     /fal/proxy: a call that names its real target in a header
    body      the request's JSON, read within its limits
    calls     from an HTTP request to a live request: what run and stream have in common
    run       the run view: the last item as one JSON answer
    stream    the stream view: from the first event, or a real HTTP status, to the end
    attach    readers who come later, or again
    requests  what can be done with a request by its id: watch it, stop it, let others watch it
    tokens    links to one request's events, for who has no key
    queue     the queue view: submit, follow, fetch, stop
    resends   calls that are sent again because nobody answered them
    status    how a queued request is, in fal's words
    events    the one writer of server-sent events
    ops       /health, /ready, /v1/apps
    static_files  files that are served as they lie in the package: the SDK for JavaScript
    playground  the page: which documents there are, and what they may load
    page_sessions  who sits at it: single-use links, and the keys that they bring
    openapi   an app's schema document, its stream items included
    llms      /llms.txt: the same for machines that read Markdown
    answers   JSON answers and their headers

The gateway knows core and the supervisor. It never parses an event and never imports a user's file.
"""
