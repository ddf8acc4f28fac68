"""What goes out: to addresses that were checked, within bounds, and untouched by the environment."""

import asyncio
import datetime as dt
import ipaddress
import socket
import ssl
import threading

import pytest

from headrace.core.netguard import Policy, UrlRefused
from headrace.outbound import resolver
from headrace.outbound.exchange import CallFailed, Outbound, Patience
from headrace.outbound.fetch import FetchPatience, fetched
from headrace.outbound.resolver import Pinned, SystemLookup
from headrace.store.certificates import names_of
from headrace.store.tls import TlsFolder
from tests.support.internet import Internet, answer

A5 = pytest.mark.promise("A5")
PUBLIC, OTHER = "93.184.216.34", "151.101.1.140"
HTTP = Policy(allow_http=True)
PATIENCE = FetchPatience(total_s=20, each=Patience(connect_s=10, idle_s=10))


def fetch(internet: Internet, url: str, policy=HTTP, patience=PATIENCE, bytes_max=1_000_000, tls=None):
    """GET a URL; return the status and the body, or what was raised in a word."""

    async def main():
        outbound = Outbound(policy, lookup=internet.lookup, tls=tls)
        try:
            async with fetched(outbound, url, patience) as found:
                return found.status, b"".join([piece async for piece in found.pieces(bytes_max)])
        except UrlRefused as refused:
            return refused.rule
        except CallFailed as failed:
            return failed.kind

    return internet.run(main)


@pytest.fixture
def internet():
    """One name and one public site; and a server on every inside address that a test could be led to."""
    internet = Internet()
    internet.name("example.com", PUBLIC)
    internet.public = internet.site(PUBLIC, 80, [answer(200, b"hello")])
    for inside in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "0.0.0.0"):
        internet.site(inside, 80, [answer(200, b"secret")])
    return internet


# --- to checked addresses alone -----------------------------------------------------------------------------------


def test_a_public_url_is_fetched_from_the_address_that_was_checked(internet):
    assert (200, b"hello") == fetch(internet, "http://example.com/a?b")
    assert [f"{PUBLIC}:80"] == internet.connects
    assert ["example.com"] == internet.lookups
    assert "GET /a?b HTTP/1.1" == internet.public.heard[0].line
    assert "example.com" == internet.public.heard[0].headers["host"]


def test_a_public_address_needs_no_lookup(internet):
    assert (200, b"hello") == fetch(internet, f"http://{PUBLIC}/")
    assert [] == internet.lookups


def test_the_next_address_of_a_name_is_tried_when_the_first_is_down(internet):
    internet.name("example.com", f"{OTHER} {PUBLIC}")

    assert (200, b"hello") == fetch(internet, "http://example.com/")
    assert [f"{OTHER}:80", f"{PUBLIC}:80"] == internet.connects


#: What a name answers to the first question and the next; how the first answer's site answers; what is told.
REBINDINGS = {
    "public first, loopback at the next question": ([PUBLIC, "127.0.0.1"], "down", "connect"),
    "public first, metadata at the next question": ([PUBLIC, "169.254.169.254"], "down", "connect"),
    "public first, then loopback, and it is served": ([PUBLIC, "127.0.0.1"], answer(200, b"hello"), (200, b"hello")),
    "the second question comes with a redirect": (
        [PUBLIC, "127.0.0.1"],
        answer(302, Location="http://rebind.example.com/2"),
        "loopback",
    ),
    "the second question comes with a relative redirect": ([PUBLIC, "10.0.0.1"], answer(302, Location="/2"), "private"),
    "loopback at once": (["127.0.0.1"], "down", "loopback"),
    "one good and one bad": ([f"{PUBLIC} 127.0.0.1"], answer(200), "loopback"),
    "one bad and one good": ([f"10.0.0.1 {PUBLIC}"], answer(200), "private"),
    "bad behind more than are tried": ([f"{' '.join([PUBLIC] * 12)} 127.0.0.1"], answer(200), "loopback"),
    "the unspecified address": (["0.0.0.0"], "down", "unspecified"),
    "IPv4 in IPv6": (["::ffff:127.0.0.1"], "down", "v4-mapped"),
    "through NAT64": (["64:ff9b::7f00:1"], "down", "nat64"),
    "with a zone": (["fe80::1%1"], "down", "link-local"),
}  # fmt: skip


@A5
@pytest.mark.parametrize(("answers", "site", "told"), REBINDINGS.values(), ids=REBINDINGS)
def test_a_name_that_changes_its_mind_leads_nowhere_inside(internet, answers, site, told):
    internet.name("rebind.example.com", *answers)
    if site == "down":
        internet.remove(PUBLIC, 80)
    else:
        internet.public.answers = [site]

    assert told == fetch(internet, "http://rebind.example.com/")
    assert [connect for connect in internet.connects if connect != f"{PUBLIC}:80"] == []


def test_a_connection_inside_would_be_seen(internet):
    """The same rig with loopback allowed: what the tests above find nothing of is there to be found."""
    internet.name("rebind.example.com", "127.0.0.1")
    policy = Policy(allow_http=True, allowed=(ipaddress.ip_network("127.0.0.0/8"),))

    assert (200, b"secret") == fetch(internet, "http://rebind.example.com/", policy)
    assert ["127.0.0.1:80"] == internet.connects


@A5
@pytest.mark.parametrize(
    ("locations", "told"),
    [
        (["http://127.0.0.1/"], "loopback"),
        (["http://169.254.169.254/latest/meta-data/"], "link-local"),
        (["http://2130706433/"], "address-spelling"),
        (["http://[::ffff:127.0.0.1]/"], "v4-mapped"),
        (["//10.0.0.1/"], "private"),
        (["http://inside.example.com/"], "private"),
        (["file:///etc/passwd"], "scheme"),
        (["http://example.com:6379/"], "port"),
        (["http://a@127.0.0.1/"], "userinfo"),
        (["/1", "/2", "http://127.0.0.1/"], "loopback"),
        (["/1", "http://other.example.com/", "http://inside.example.com/"], "private"),
        (["/1", "/2", "/3", "/4"], "redirects"),
        (["/"], "redirects"),
    ],
)
def test_a_chain_of_redirects_leads_nowhere_inside(internet, locations, told):
    internet.name("inside.example.com", "10.0.0.1")
    internet.name("other.example.com", PUBLIC)
    internet.public.answers = [answer(302, b"moved", Location=location) for location in locations]

    assert told == fetch(internet, "http://example.com/")
    assert {f"{PUBLIC}:80"} == set(internet.connects)
    assert len(internet.connects) <= 4


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_three_redirects_are_followed(internet, status):
    internet.name("other.example.com", OTHER)
    internet.site(OTHER, 80, [answer(200, b"found")])
    internet.public.answers = [
        answer(status, Location="/1"),
        answer(status, Location="2?x"),
        answer(status, Location="//other.example.com/3"),
    ]

    assert (200, b"found") == fetch(internet, "http://example.com/")
    assert [f"{PUBLIC}:80"] * 3 + [f"{OTHER}:80"] == internet.connects


@pytest.mark.parametrize("status", [300, 304])
def test_what_is_no_redirect_to_follow_is_an_answer(internet, status):
    internet.public.answers = [answer(status, Location="http://127.0.0.1/")]

    assert (status, b"") == fetch(internet, "http://example.com/")


# --- real servers on this machine, no pretending -------------------------------------------------------------------


def fetch_for_real(url: str, policy: Policy):
    async def main():
        async with fetched(Outbound(policy), url, PATIENCE) as found:
            return b"".join([piece async for piece in found.pieces(100)])

    return asyncio.run(main())


@pytest.fixture
def local_port():
    """A server of this machine, which counts who comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        came = []

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                came.append(connection)
                with connection:
                    connection.recv(65_536)
                    connection.sendall(answer(200, b"local", Connection="close"))

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


@A5
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1", "0.0.0.0"])
def test_a_server_of_this_machine_is_not_called(local_port, host):
    port, came = local_port

    with pytest.raises(UrlRefused):
        fetch_for_real(f"http://{host}:{port}/", Policy(allow_http=True, ports=frozenset({port})))
    assert [] == came


@A5
def test_a_real_name_of_this_machine_is_refused_by_its_address(local_port):
    """Some network is allowed, so the name is asked about; its address is not in it."""
    port, came = local_port
    policy = Policy(allow_http=True, ports=frozenset({port}), allowed=(ipaddress.ip_network("10.9.8.0/24"),))

    with pytest.raises(UrlRefused, match="localhost leads to an address that is not public .rule: loopback"):
        fetch_for_real(f"http://localhost:{port}/", policy)
    assert [] == came


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_server_of_this_machine_is_called_where_the_operator_allows_its_network(local_port, host):
    port, came = local_port
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

    assert b"local" == fetch_for_real(
        f"http://{host}:{port}/", Policy(allow_http=True, ports=frozenset({port}), allowed=networks)
    )
    assert 1 == len(came)


# --- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = TlsFolder(tmp_path_factory.mktemp("data") / "tls")
    folder.prepare(names_of("127.0.0.1", ["example.com"]), dt.datetime.now(dt.UTC))
    return folder


def test_tls_is_by_name_though_the_connection_goes_to_an_address(internet, authority):
    site = internet.site(PUBLIC, 443, [answer(200, b"sealed")], tls=authority.context())
    trusting = ssl.create_default_context(cafile=authority.ca)

    assert (200, b"sealed") == fetch(internet, "https://example.com/", Policy(), tls=trusting)
    assert ["example.com"] == site.names
    assert "example.com" == site.heard[0].headers["host"]
    assert [f"{PUBLIC}:443"] == internet.connects


def test_a_server_with_anothers_certificate_hears_nothing(internet, authority):
    internet.name("other.example.org", PUBLIC)
    site = internet.site(PUBLIC, 443, [answer(200)], tls=authority.context())
    trusting = ssl.create_default_context(cafile=authority.ca)

    assert "tls" == fetch(internet, "https://other.example.org/", Policy(), tls=trusting)
    assert "tls" == fetch(internet, "https://example.com/", Policy())  # no CA that we know
    assert [] == site.heard


# --- nothing of the environment -----------------------------------------------------------------------------------


@A5
def test_no_proxy_no_password_and_no_cookie_goes_out(internet, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:80")
    (tmp_path / "netrc").write_text("machine example.com login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    internet.public.answers = [answer(302, Location="/2", Set_Cookie="a=b"), answer(200)]

    assert (200, b"") == fetch(internet, "http://example.com/")
    assert {f"{PUBLIC}:80"} == set(internet.connects)
    assert all(
        {"host", "accept", "accept-encoding", "connection", "user-agent"} == set(it.headers)
        for it in internet.public.heard
    )


# --- bounds -------------------------------------------------------------------------------------------------------


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def trickled_head(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(60)


async def stopped(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx")
    await asyncio.sleep(60)


SHORT = FetchPatience(total_s=0.5, each=Patience(connect_s=10, idle_s=10))
RESTLESS = FetchPatience(total_s=20, each=Patience(connect_s=10, idle_s=0.2))


@pytest.mark.parametrize(
    ("script", "patience", "told"),
    [
        (answer(200, b"x" * 100_001), PATIENCE, "too-large"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100001\r\n\r\n", PATIENCE, "too-large"),
        (endless, PATIENCE, "too-large"),
        (trickle, SHORT, "timeout"),
        (trickled_head, SHORT, "timeout"),
        (silent, SHORT, "timeout"),
        (silent, RESTLESS, "timeout"),
        (stopped, RESTLESS, "timeout"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nx", PATIENCE, "cut"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", PATIENCE, "cut"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", PATIENCE, "http"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", PATIENCE, "http"),
        (b"", PATIENCE, "connect"),
        (answer(200, b"\x1f\x8b", Content_Encoding="gzip"), PATIENCE, "encoded"),
        (answer(200, b"x" * 100_000), PATIENCE, (200, b"x" * 100_000)),
    ],
)  # fmt: skip
def test_an_answer_is_bounded_in_time_and_size(internet, script, patience, told):
    internet.public.answers = [script]

    assert told == fetch(internet, "http://example.com/", patience=patience, bytes_max=100_000)


def test_a_name_without_an_address_and_a_server_that_is_down_are_told_apart(internet):
    internet.name("down.example.com", OTHER)
    internet.name("empty.example.com", "")

    assert "lookup" == fetch(internet, "http://unknown.example.com/")
    assert "lookup" == fetch(internet, "http://empty.example.com/")
    assert "connect" == fetch(internet, "http://down.example.com/")


def test_a_slow_name_server_is_not_waited_for():
    async def never(host, port):
        await asyncio.sleep(60)

    async def main():
        async with fetched(Outbound(Policy(), lookup=never), "https://example.com/", SHORT):
            pass

    with pytest.raises(CallFailed, match=r"https://example\.com: took too long"):
        asyncio.run(main())


def test_a_failure_tells_neither_the_path_nor_an_address(internet):
    internet.name("down.example.com", OTHER)

    async def main():
        async with fetched(Outbound(HTTP, lookup=internet.lookup), "http://down.example.com/token", PATIENCE):
            pass

    with pytest.raises(CallFailed) as caught:
        internet.run(main)
    assert "http://down.example.com: Connection refused" == str(caught.value)


# --- the resolver -------------------------------------------------------------------------------------------------


def test_a_socket_is_made_for_a_checked_address_alone():
    pinned = Pinned("example.com", [ipaddress.ip_address(PUBLIC)])
    kind = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")

    pinned.socket_to((*kind, (PUBLIC, 443))).close()

    with pytest.raises(OSError, match=r"10\.0\.0\.1 is not an address that was checked"):
        pinned.socket_to((*kind, ("10.0.0.1", 443)))
    with pytest.raises(OSError, match=r"other\.example\.com is not the name that was checked"):
        asyncio.run(pinned.resolve("other.example.com"))


def test_the_system_knows_this_machine():
    found = asyncio.run(SystemLookup()("localhost", 80))

    assert set(found) <= {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    assert found


def test_lookups_that_hang_are_bounded_and_hold_nobody_up(monkeypatch):
    """The name server answers nobody, until the test is over."""
    over = threading.Event()
    monkeypatch.setattr(resolver.socket, "getaddrinfo", lambda *_, **__: over.wait(30) and [])
    lookup = SystemLookup(lookups_max=2)

    async def main():
        for _ in range(2):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await lookup("slow.example.com", 443)
        with pytest.raises(OSError, match="too many names are being looked up"):
            await lookup("slow.example.com", 443)

    asyncio.run(main())
    over.set()
    for thread in threading.enumerate():
        if thread.name == "headrace-lookup":
            thread.join(10)

    assert [] == asyncio.run(lookup("fast.example.com", 443))
