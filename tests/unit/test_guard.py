"""What is refused by the head of a request alone."""

import pytest

from headrace.core.errors import RequestError
from headrace.core.limits import Limits
from headrace.gateway.guard import Guard, is_loopback

LOCAL = Guard(Limits(), loopback_only=True)
PUBLIC = Guard(Limits(), loopback_only=False)
NAMED = Guard(Limits(), loopback_only=False, allowed_hosts=frozenset({"api.example.org"}))


def refusal(guard: Guard, target: bytes, *hosts: bytes, version: str = "1.1") -> str | None:
    try:
        guard.check_head(target, version, [(b"host", host) for host in hosts])
    except RequestError as error:
        return error.type
    return None


@pytest.mark.parametrize(
    "host", [b"localhost", b"localhost:8080", b"127.0.0.1:1", b"[::1]:8080", b"queue.localhost", b"LOCALHOST"]
)
def test_a_loopback_server_answers_to_loopback_names(host):
    assert refusal(LOCAL, b"/", host) is None


@pytest.mark.parametrize(
    "host",
    [b"evil.example", b"127.0.0.1.evil.example", b"10.0.0.1", b"localhost.evil.example", b"[::2]", b"0.0.0.0"],
)
def test_a_page_that_rebinds_its_name_to_loopback_is_refused(host):
    assert refusal(LOCAL, b"/", host) == "bad_request"


@pytest.mark.parametrize("hosts", [(), (b"localhost", b"localhost"), (b"a b",), (b"user@localhost",), (b"",)])
def test_host_must_come_once_and_be_a_host(hosts):
    assert refusal(LOCAL, b"/", *hosts) == "bad_request"


def test_http_1_0_may_lack_the_host():
    assert refusal(LOCAL, b"/", version="1.0") is None


@pytest.mark.parametrize("target", [b"http://localhost/", b"*", b"localhost:80", b""])
def test_the_target_must_be_a_path(target):
    assert refusal(LOCAL, target, b"localhost") == "bad_request"


def test_a_public_server_answers_to_any_name_unless_names_are_listed():
    assert refusal(PUBLIC, b"/", b"whatever.example") is None
    assert refusal(NAMED, b"/", b"api.example.org") is None
    assert refusal(NAMED, b"/", b"whatever.example") == "bad_request"


@pytest.mark.parametrize(
    ("line", "total", "count", "is_good"),
    [
        (16 * 1024, 16 * 1024, 1, True),
        (16 * 1024 + 1, 16 * 1024 + 1, 1, False),
        (10, 32 * 1024, 50, True),
        (10, 32 * 1024 + 1, 50, False),
        (10, 1_000, 100, True),
        (10, 1_010, 101, False),
    ],
)
def test_header_bounds_hold_to_the_byte(line, total, count, is_good):
    if is_good:
        LOCAL.check_header_size(line, total, count)
        return
    with pytest.raises(RequestError) as refused:
        LOCAL.check_header_size(line, total, count)

    assert refused.value.status == 431


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("192.168.0.1", False),
        ("example.org", False),
    ],
)
def test_loopback_hosts_are_known(host, expected):
    assert is_loopback(host) is expected
