"""Which web pages may call, and what the proxy route takes for its target."""

import pytest

from headrace.core.errors import RequestError
from headrace.gateway.addresses import Addresses
from headrace.gateway.origins import Origins
from headrace.gateway.proxy import target_of

LOCAL = Origins(loopback_only=True)
LISTED = Origins(loopback_only=False, allowed=frozenset({"https://app.example.org"}))
OWN = "http://127.0.0.1:8080"


def is_refused(origins: Origins, origin: str, own: str = OWN) -> bool:
    try:
        origins.judge({"origin": origin}, own)
    except RequestError as error:
        assert (error.status, error.type) == (403, "forbidden")
        return True
    return False


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://127.0.0.1",
        "https://localhost",
        "http://[::1]:5173",
        "http://app.localhost:1",
    ],
)
def test_pages_of_this_machine_may_call_a_loopback_server(origin):
    assert not is_refused(LOCAL, origin)
    assert LOCAL.trusts_page({"origin": origin})


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
        "http://127.0.0.1.evil.example",
        "file://localhost",
        "http://10.0.0.1",
        "",
        "http://[",
    ],
)
def test_pages_from_anywhere_else_are_refused_even_without_authentication(origin):
    assert is_refused(LOCAL, origin)
    assert not LOCAL.trusts_page({"origin": origin})


def test_another_bind_knows_its_own_origin_and_the_listed_ones_alone():
    assert not is_refused(LISTED, "https://app.example.org")
    assert not is_refused(LISTED, "https://api.example.org", own="https://api.example.org")
    assert is_refused(LISTED, "http://localhost:3000")
    assert is_refused(LISTED, "https://app.example.org.evil.example")


def test_the_server_vouches_for_no_page_on_another_bind():
    assert not LISTED.trusts_page({"origin": "https://app.example.org"})
    assert not LISTED.trusts_page({"origin": "http://localhost:3000"})


def test_a_program_without_an_origin_is_not_judged_and_not_vouched_for():
    assert LOCAL.judge({}, OWN) == []
    assert not LOCAL.trusts_page({})


def test_the_answer_names_the_exact_origin_never_a_star():
    headers = dict(LOCAL.judge({"origin": "http://localhost:3000"}, OWN))

    assert headers[b"access-control-allow-origin"] == b"http://localhost:3000"
    assert headers[b"vary"] == b"Origin"
    assert b"x-fal-request-id" in headers[b"access-control-expose-headers"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://fal.run/fal-ai/flux/stream", ("/fal-ai/flux/stream", "")),
        ("https://fal.run/a/b/stream?x=1&y=2", ("/a/b/stream", "x=1&y=2")),
        ("https://FAL.RUN/a/b", ("/a/b", "")),
        ("https://fal.run:443/a/b", ("/a/b", "")),
        ("https://queue.fal.run/a/b/requests/1/status?logs=1", ("/queue/a/b/requests/1/status", "logs=1")),
        ("https://fal.run", ("/", "")),
    ],
)
def test_a_target_on_fals_hosts_is_a_path_here(url, expected):
    assert target_of({"x-fal-target-url": url}) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/a/b",
        "https://evilfal.run/a/b",
        "https://fal.run.evil.example/a/b",
        "https://fal.run@evil.example/a/b",
        "https://user@fal.run/a/b",
        "https://fal.run:8443/a/b",
        "http://fal.run/a/b",
        "//fal.run/a/b",
        "fal.run/a/b",
        "file:///etc/passwd",
        "https://fal.run:x/",
        "http://169.254.169.254/latest/meta-data",
        "",
    ],
)
def test_any_other_target_is_refused_and_fetched_by_nobody(url):
    with pytest.raises(RequestError) as refused:
        target_of({"x-fal-target-url": url})

    assert refused.value.status == 412


def test_a_missing_target_is_a_400():
    with pytest.raises(RequestError) as refused:
        target_of({})

    assert refused.value.status == 400


def scope(peer: str) -> dict:
    return {"scheme": "http", "client": (peer, 1234)}


FORWARDED = {"host": "inner:8080", "x-forwarded-proto": "https", "x-forwarded-host": "evil, api.example.org"}


def test_forwarded_headers_count_from_a_trusted_proxy_alone():
    import ipaddress

    trusting = Addresses(trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"),))

    assert trusting.own(scope("10.1.2.3"), FORWARDED) == "https://api.example.org"
    assert trusting.own(scope("192.168.0.1"), FORWARDED) == "http://inner:8080"
    assert Addresses().own(scope("10.1.2.3"), FORWARDED) == "http://inner:8080"


def test_a_public_url_wins():
    assert Addresses("https://api.example.org").own(scope("1.2.3.4"), FORWARDED) == "https://api.example.org"
