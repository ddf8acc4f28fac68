"""https and proxies, on both shells: what is trusted, what is refused, and what a proxy gets to see."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.client import errors
from tests.support import scripted as support
from tests.support.scripted import (
    CLOSE,
    HOLD,
    LAST_CHUNK,
    RESET,
    STREAM_HEAD,
    STRETCHES,
    answer,
    event,
    refusing,
    scripted,
)
from tests.support.shells import SHELLS, no_credentials  # noqa: F401

WHOLE = [STREAM_HEAD, event(b'{"i": 1}'), LAST_CHUNK]

both_shells = pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell.name)


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(support.TLS_CERTIFICATE))


@both_shells
def test_a_stream_over_tls_with_a_private_ca(shell: Any, trusted: None) -> None:
    with scripted(WHOLE, tls=True) as server:
        outcome = shell.stream(server.url, timeout=10.0)

    assert ([{"i": 1}], None) == (outcome.items, outcome.error)


@both_shells
def test_a_stream_over_tls_is_left_at_once(shell: Any, trusted: None) -> None:
    for stretch in STRETCHES:
        with scripted([STREAM_HEAD, event(b'{"i": 1}'), HOLD], tls=True) as server:
            outcome = shell.stream(server.url, event_timeout=0.5 * stretch)
            if outcome.items:  # else the handshake took as long
                server.wait_for_leavers()
                break

    assert ([{"i": 1}], errors.EventTimeout) == (outcome.items, type(outcome.error))


@both_shells
def test_a_stream_cut_over_tls_is_stream_cut(shell: Any, trusted: None) -> None:
    with scripted([STREAM_HEAD, event(b'{"i": 1}'), CLOSE], tls=True) as server:
        outcome = shell.stream(server.url)

    assert ([{"i": 1}], errors.StreamCut) == (outcome.items, type(outcome.error))


@both_shells
def test_an_unknown_certificate_is_tls_failed(shell: Any) -> None:
    with scripted(WHOLE, tls=True) as server:
        outcome = shell.stream(server.url)

        assert (errors.TLSFailed, []) == (type(outcome.error), server.requests)


@both_shells
def test_a_certificate_of_another_host_is_tls_failed(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = support.TLS_CERTIFICATE.with_name("elsewhere.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(elsewhere))
    monkeypatch.setattr(support, "TLS_CERTIFICATE", elsewhere)
    with scripted(WHOLE, tls=True) as server:
        outcome = shell.stream(server.url)

        assert (errors.TLSFailed, []) == (type(outcome.error), server.requests)


@both_shells
def test_https_to_a_server_without_tls_is_tls_failed(shell: Any) -> None:
    with scripted([], on_connect=[b"HTTP/1.1 400 Bad Request\r\n\r\n", HOLD]) as server:
        outcome = shell.stream(server.url.replace("http:", "https:"))

    assert errors.TLSFailed is type(outcome.error)


@both_shells
@pytest.mark.parametrize("ending", [CLOSE, RESET], ids=["closed", "reset"])
def test_a_handshake_that_breaks_off_is_connection_failed(shell: Any, ending: Any) -> None:
    with scripted([], on_connect=[ending]) as server:
        outcome = shell.stream(server.url.replace("http:", "https:"))

    assert errors.ConnectionFailed is type(outcome.error), outcome.error


@both_shells
def test_a_handshake_without_an_answer_is_connect_timeout(shell: Any) -> None:
    with scripted(WHOLE) as server:  # reads the hello as a request line that never ends
        outcome = shell.stream(server.url.replace("http:", "https:"), client={"connect_timeout": 0.4})

    assert errors.ConnectTimeout is type(outcome.error), outcome.error


@both_shells
def test_http_goes_through_the_proxy_of_the_environment(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(WHOLE) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("://", "://user:p%40ss@"))
        outcome = shell.stream("http://model.test:8080", client={"key": "kid:sec"})
        [request] = proxy.requests

    assert ([{"i": 1}], None) == (outcome.items, outcome.error)
    assert "POST http://model.test:8080/me/app/stream HTTP/1.1" == request.line
    assert "Basic dXNlcjpwQHNz" == request.headers["proxy-authorization"]
    assert "Key kid:sec" == request.headers["authorization"]


@both_shells
def test_https_goes_through_a_tunnel_that_does_not_see_the_key(
    shell: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with scripted([answer(403, b"not there")]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url.replace("://", "://user:pass@"))
        outcome = shell.stream("https://model.test", client={"key": "kid:topsecret"})
        [request] = proxy.requests

    assert errors.ConnectionFailed is type(outcome.error), outcome.error
    assert request.line.startswith("CONNECT model.test:443 ")
    assert "Basic dXNlcjpwYXNz" == request.headers["proxy-authorization"]
    assert "topsecret" not in request.head


@both_shells
def test_no_proxy_is_honoured(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with scripted(WHOLE) as server:
        outcome = shell.stream(server.url)

    assert ([{"i": 1}], None) == (outcome.items, outcome.error)


@both_shells
def test_a_proxy_that_refuses_is_connection_failed(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with refusing() as url:
        monkeypatch.setenv("ALL_PROXY", url)
        outcome = shell.stream("http://model.test")

    assert errors.ConnectionFailed is type(outcome.error), outcome.error


@both_shells
def test_a_proxy_of_another_kind_is_told_at_once(shell: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://user:secret@127.0.0.1:9")
    outcome = shell.stream("http://model.test")

    assert ValueError is type(outcome.error)
    assert "socks5" in str(outcome.error)
    assert "secret" not in str(outcome.error)


@both_shells
def test_passwords_of_netrc_are_not_sent(shell: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with scripted(WHOLE) as server:
        shell.stream(server.url, client={"key": None})

        assert "authorization" not in server.requests[0].headers
