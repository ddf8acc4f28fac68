"""The only room that calls out: the webhooks of callers, and the URLs in their inputs.

    resolver   what addresses a name has, all of them judged; a connection goes to those and nowhere else
    exchange   one guarded request and its answer
    fetch      GET, following a few redirects, each judged like the first URL
    webhooks   one try to deliver one webhook

The way of a call: `core.netguard.check_url` judges the URL → `resolver.resolve` asks for its addresses, once, and
judges every one → aiohttp connects to one of those, by name as far as TLS and Host go. Nothing of the environment
takes part: no proxy, no netrc, no cookie.

Private. It knows `core` and aiohttp; who calls it, and what is done with an answer, it does not know.
"""
