"""Which URLs of callers are called: every spelling that leads inside is refused, by the rule that says why."""

import ipaddress

import pytest

from headrace.core.netguard import (
    ADDRESS_RULES,
    URL_RULES,
    Policy,
    UrlRefused,
    check_redirect,
    check_url,
    why_not_public,
)

A5 = pytest.mark.promise("A5")
PUBLIC = Policy()
HTTP_TOO = Policy(allow_http=True)


def verdict(url: str, policy: Policy = PUBLIC) -> str:
    """The rule that refuses a URL, or what it means."""
    try:
        return check_url(url, policy).url
    except UrlRefused as refused:
        return refused.rule


# --- addresses --------------------------------------------------------------------------------------------------

ADDRESSES = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.255.254", "::1"],
    "private": ["10.0.0.0", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.0.1"],
    "unique-local": ["fc00::", "fd00:ec2::254", "fdff::1"],
    "carrier-grade-nat": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "link-local": ["169.254.169.254", "169.254.0.0", "fe80::1", "febf::1"],
    "site-local": ["fec0::1", "feff::1"],
    "cloud-platform": ["168.63.129.16"],
    "multicast": ["224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1"],
    "broadcast": ["255.255.255.255"],
    "reserved": ["240.0.0.1", "255.255.255.254", "4000::1", "5f00::1", "200::1", "::2:0:0:0", "1fff::1", "fe00::1"],
    "protocol-assignment": ["192.0.0.192", "192.0.0.1", "2001:1::1", "2001:30::1"],
    "documentation": ["192.0.2.1", "198.51.100.7", "203.0.113.9", "2001:db8::1", "3fff::1"],
    "benchmarking": ["198.18.0.1", "198.19.255.255", "2001:2::1"],
    "discard": ["100::1"],
    "orchid": ["2001:10::1", "2001:2f::1"],
    "v4-compatible": ["::127.0.0.1", "::10.0.0.1", "::8.8.8.8"],
    "v4-mapped": ["::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::ffff:8.8.8.8"],
    "v4-translated": ["::ffff:0:7f00:1"],
    "nat64": ["64:ff9b::7f00:1", "64:ff9b::8.8.8.8", "64:ff9b:1::a00:1"],
    "6to4": ["192.88.99.1", "2002:7f00:1::", "2002:a9fe:a9fe::1"],
    "teredo": ["2001::1", "2001:0:7f00:1::"],
    "isatap": ["2606:4700::5efe:7f00:1", "2606:4700::200:5efe:10.0.0.1"],
    "zone": ["2606:4700::1%eth0"],
}  # fmt: skip


@A5
@pytest.mark.parametrize(
    ("rule", "address"), [(rule, text) for rule, texts in ADDRESSES.items() for text in texts]
)
def test_an_address_that_is_not_public_is_known_by_its_rule(rule, address):
    assert rule == why_not_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
     "172.15.255.255", "172.32.0.0", "169.253.255.255", "192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255",
     "2000::1", "2001:200::1", "2606:4700:4700::1111", "2a00:1450::1", "2003::1"],
)  # fmt: skip
def test_an_address_beside_a_block_is_public(address):
    assert why_not_public(ipaddress.ip_address(address)) is None


def test_every_rule_for_addresses_has_an_example():
    assert set(ADDRESS_RULES) - {""} == set(ADDRESSES) - {"zone"}


def test_whatever_python_calls_private_is_not_public():
    """The other way round, Python knows less than the table."""
    for address in map(ipaddress.ip_address, range(0, 2**32, 2**16 + 1)):
        assert address.is_global or why_not_public(address) is not None, address


# --- spellings --------------------------------------------------------------------------------------------------

INSIDE = [
    # An address, plainly.
    ("https://127.0.0.1/", "loopback"),
    ("https://127.0.0.1:8443/hook", "loopback"),
    ("https://127.8.9.10/", "loopback"),
    ("https://0.0.0.0/", "unspecified"),
    ("https://10.0.0.1/", "private"),
    ("https://172.20.1.1/", "private"),
    ("https://192.168.1.1/", "private"),
    ("https://169.254.169.254/latest/meta-data/", "link-local"),
    ("https://100.100.100.200/", "carrier-grade-nat"),
    ("https://168.63.129.16/", "cloud-platform"),
    ("https://192.0.0.192/", "protocol-assignment"),
    ("https://255.255.255.255/", "broadcast"),
    ("https://224.0.0.1/", "multicast"),
    ("https://198.18.0.1/", "benchmarking"),
    ("https://203.0.113.1/", "documentation"),
    # The spellings of inet_aton: one number, two, three; octal, hexadecimal, mixed.
    ("https://2130706433/", "address-spelling"),
    ("https://017700000001/", "address-spelling"),
    ("https://0x7f000001/", "address-spelling"),
    ("https://0X7F000001/", "address-spelling"),
    ("https://127.1/", "address-spelling"),
    ("https://127.0.1/", "address-spelling"),
    ("https://127.65537/", "address-spelling"),
    ("https://0/", "address-spelling"),
    ("https://0x/", "address-spelling"),
    ("https://0x7f.1/", "address-spelling"),
    ("https://0x7f.0.0.1/", "address-spelling"),
    ("https://0x7f.0x0.0x0.0x1/", "address-spelling"),
    ("https://0177.0.0.1/", "address-spelling"),
    ("https://0177.0.0.01/", "address-spelling"),
    ("https://127.0.0.01/", "address-spelling"),
    ("https://127.0.0.0x1/", "address-spelling"),
    ("https://0177.0x0.0.1/", "address-spelling"),
    ("https://00000177.1/", "address-spelling"),
    ("https://0xa9.0xfe.0xa9.0xfe/", "address-spelling"),
    ("https://0xa9fea9fe/", "address-spelling"),
    ("https://2852039166/", "address-spelling"),
    ("https://169.254.43518/", "address-spelling"),
    ("https://169.16689662/", "address-spelling"),
    ("https://0251.0376.0251.0376/", "address-spelling"),
    ("https://425.510.425.510/", "address-spelling"),
    ("https://256.0.0.1/", "address-spelling"),
    ("https://4294967297/", "address-spelling"),
    ("https://6425673729/", "address-spelling"),
    ("https://1.2.3.4.5/", "address-spelling"),
    ("https://example.com.127/", "address-spelling"),
    ("https://example.com.0x7f/", "address-spelling"),
    ("https://0x08080808/", "address-spelling"),
    # Final dots.
    ("https://127.0.0.1./", "loopback"),
    ("https://127.0.0.1。/", "loopback"),
    ("https://127.1./", "address-spelling"),
    ("https://127.0.0.1../", "host"),
    ("https://localhost./", "local-name"),
    ("https://.127.0.0.1/", "host"),
    # Letters and dots that become plain ones on the way.
    ("https://１２７.０.０.１/", "loopback"),
    ("https://①②⑦.⓪.⓪.①/", "loopback"),
    ("https://127。0。0。1/", "loopback"),
    ("https://127．0．0．1/", "loopback"),
    ("https://127｡0｡0｡1/", "loopback"),
    ("https://169。254。169。254/", "link-local"),
    ("https://２１３０７０６４３３/", "address-spelling"),
    ("https://０ｘ７ｆ.１/", "address-spelling"),
    ("https://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", "loopback"),
    ("https://ｌｏｃａｌｈｏｓｔ/", "local-name"),
    ("https://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/", "local-name"),
    ("https://LOCALHOST/", "local-name"),
    # IPv6.
    ("https://[::1]/", "loopback"),
    ("https://[0:0:0:0:0:0:0:1]/", "loopback"),
    ("https://[0000::0001]:443/", "loopback"),
    ("https://[::]/", "unspecified"),
    ("https://[::ffff:127.0.0.1]/", "v4-mapped"),
    ("https://[::ffff:7f00:1]/", "v4-mapped"),
    ("https://[::FFFF:169.254.169.254]/", "v4-mapped"),
    ("https://[0:0:0:0:0:ffff:127.0.0.1]/", "v4-mapped"),
    ("https://[::127.0.0.1]/", "v4-compatible"),
    ("https://[::ffff:0:127.0.0.1]/", "v4-translated"),
    ("https://[64:ff9b::127.0.0.1]/", "nat64"),
    ("https://[64:ff9b::7f00:1]/", "nat64"),
    ("https://[64:ff9b:1::10.0.0.1]/", "nat64"),
    ("https://[2002:7f00:1::]/", "6to4"),
    ("https://[2001:0:7f00:1::]/", "teredo"),
    ("https://[fe80::1]/", "link-local"),
    ("https://[fe80::1%25eth0]/", "zone"),
    ("https://[fe80::1%eth0]/", "zone"),
    ("https://[2606:4700::1%251]/", "zone"),
    ("https://[fc00::1]/", "unique-local"),
    ("https://[fd00:ec2::254]/", "unique-local"),
    ("https://[fec0::1]/", "site-local"),
    ("https://[ff02::1]/", "multicast"),
    ("https://[2001:db8::1]/", "documentation"),
    ("https://[::1/", "host"),
    ("https://[::1]x/", "host"),
    ("https://[::1]:80:80/", "port"),
    ("https://[[::1]]/", "host"),
    ("https://[127.0.0.1]/", "host"),
    ("https://[v1.fe80]/", "host"),
    ("https://[::0x1]/", "host"),
    ("https://[]/", "host"),
    ("https://::1/", "host"),
    # Who is the host?
    ("https://example.com@127.0.0.1/", "userinfo"),
    ("https://127.0.0.1@example.com/", "userinfo"),
    ("https://user:pass@example.com/", "userinfo"),
    ("https://@example.com/", "userinfo"),
    ("https://example.com:443@127.0.0.1/", "userinfo"),
    ("https://example.com＠127.0.0.1/", "host"),
    ("https://example.com\\@127.0.0.1/", "backslash"),
    ("https:\\\\127.0.0.1/", "backslash"),
    ("https://example.com\\.127.0.0.1/", "backslash"),
    ("https://127.0.0.1#@example.com/", "loopback"),
    ("https://127.0.0.1?@example.com/", "loopback"),
    ("https://127.0.0.1%2f@example.com/", "userinfo"),
    ("https://127.0.0.1%2fexample.com/", "host"),
    ("https://127.0.0.1%00.example.com/", "host"),
    ("https://%31%32%37.0.0.1/", "host"),
    ("https://127.0.0.1%E3%80%82/", "host"),
    ("https://example.com／127.0.0.1/", "host"),
    ("https://example.com：443/", "host"),
    ("https://℀.example.com/", "host"),
    ("https://example.com,127.0.0.1/", "host"),
    ("https://127.0.0.1 example.com/", "character"),
    # Characters that some drop.
    ("https://127.0.0.1\t/", "character"),
    ("https://127.\n0.0.1/", "character"),
    ("https://exam\rple.com/", "character"),
    (" https://example.com/", "character"),
    ("https://example.com/\r\nHost: 127.0.0.1", "character"),
    ("https://example.com/ HTTP/1.1", "character"),
    ("https://example.com/\x00", "character"),
    ("https://127\xad.0.0.1/", "character"),
    ("https://127.0.0\u200b.1/", "character"),
    ("https://example\u202e.com/", "character"),
    ("https://example.com/\ud800", "character"),
    ("https://example\u2028.com/", "character"),
    # Names that only a private network knows.
    ("https://localhost/", "local-name"),
    ("https://a.localhost/", "local-name"),
    ("https://redis:8080/", "local-name"),
    ("https://printer.local/", "local-name"),
    ("https://metadata.google.internal/", "local-name"),
    ("https://router.home.arpa/", "local-name"),
    # No host, or none that is a name.
    ("https:///etc/passwd", "host"),
    ("https://", "host"),
    ("https://./", "host"),
    ("https://a..example.com/", "host"),
    ("https://-a.example.com/", "host"),
    (f"https://{'a' * 64}.example.com/", "host"),
    (f"https://{'a.' * 130}com/", "host"),
    ("https://faß.example.com/", "host"),
    ("https://exa mple.com/", "character"),
    ("https://exa<mple.com/", "host"),
    ("https://*.example.com/", "host"),
    # Other schemes, or none.
    ("http://example.com/", "scheme"),
    ("HTTP://example.com/", "scheme"),
    ("file:///etc/passwd", "scheme"),
    ("FILE:///etc/passwd", "scheme"),
    ("gopher://127.0.0.1:6379/_x", "scheme"),
    ("ftp://example.com/", "scheme"),
    ("dict://127.0.0.1:11211/", "scheme"),
    ("unix:///var/run/docker.sock", "scheme"),
    ("data:text/plain,x", "scheme"),
    ("javascript:alert(1)", "scheme"),
    ("jar:https://example.com!/", "scheme"),
    ("https+unix://example.com/", "scheme"),
    ("//example.com/", "not-a-url"),
    ("/hook", "not-a-url"),
    ("example.com/hook", "not-a-url"),
    ("https:example.com/", "not-a-url"),
    ("https:/example.com/", "not-a-url"),
    ("https//example.com/", "not-a-url"),
    ("", "not-a-url"),
    ("?", "not-a-url"),
    # Ports.
    ("https://example.com:22/", "port"),
    ("https://example.com:6379/", "port"),
    ("https://example.com:0/", "port"),
    ("https://example.com:/", "port"),
    ("https://example.com:65536/", "port"),
    ("https://example.com:4294967739/", "port"),
    ("https://example.com:+443/", "port"),
    ("https://example.com:-1/", "port"),
    ("https://example.com:0443/", "port"),
    ("https://example.com:４４３/", "port"),
    ("https://example.com:443:22/", "port"),
    ("https://example.com:443x/", "port"),
    # Length.
    (f"https://example.com/{'a' * 2_048}", "too-long"),
]


@A5
@pytest.mark.parametrize(("url", "rule"), INSIDE, ids=[ascii(url)[:60] for url, _ in INSIDE])
def test_a_url_that_could_lead_inside_is_refused_by_its_rule(url, rule):
    assert rule == verdict(url)


def test_there_are_enough_spellings_and_every_rule_is_shown():
    assert len(INSIDE) >= 90
    assert set(URL_RULES) <= {rule for _, rule in INSIDE}


@pytest.mark.parametrize(
    ("url", "means"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://Example.COM/Hook?A=B", "https://example.com/Hook?A=B"),
        ("https://example.com:443/", "https://example.com/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("https://example.com./x", "https://example.com/x"),
        ("https://example。com/x", "https://example.com/x"),
        ("https://ＥＸＡＭＰＬＥ.com/x", "https://example.com/x"),
        ("https://bücher.example.com/ä?ö=ü", "https://xn--bcher-kva.example.com/%C3%A4?%C3%B6=%C3%BC"),
        ("https://xn--bcher-kva.example.com/", "https://xn--bcher-kva.example.com/"),
        ("https://a_b.example.com/", "https://a_b.example.com/"),
        ("https://example.com?q=1", "https://example.com/?q=1"),
        ("https://example.com/a#fragment", "https://example.com/a"),
        ("https://example.com/%2e%2e/a%20b", "https://example.com/%2e%2e/a%20b"),
        ('https://example.com/"<{a}>', "https://example.com/%22%3C%7Ba%7D%3E"),
        ("https://example.com/@me?to=https://127.0.0.1/", "https://example.com/@me?to=https://127.0.0.1/"),
        ("https://8.8.8.8/", "https://8.8.8.8/"),
        ("https://8.8.8.8./", "https://8.8.8.8/"),
        ("https://[2606:4700:4700:0::1111]:8443/", "https://[2606:4700:4700::1111]:8443/"),
        ("https://1e100.net/", "https://1e100.net/"),
        ("https://127.0.0.1.example.com/", "https://127.0.0.1.example.com/"),
        (f"https://example.com/{'a' * 2_028}", f"https://example.com/{'a' * 2_028}"),
    ],
)  # fmt: skip
def test_a_plain_url_has_one_spelling(url, means):
    assert means == verdict(url)


def test_http_is_called_only_where_the_operator_allows_it():
    assert "scheme" == verdict("http://example.com/hook")
    assert "http://example.com/hook" == verdict("http://example.com:80/hook", HTTP_TOO)
    assert "http://example.com:443/" == verdict("http://example.com:443/", HTTP_TOO)


def test_an_allowed_network_is_allowed_exactly():
    policy = Policy(allowed=(ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32")))

    assert "https://10.1.2.3/" == verdict("https://10.1.2.3/", policy)
    assert "https://[fd00:1::5]/" == verdict("https://[fd00:1::5]/", policy)
    assert "private" == verdict("https://10.2.0.1/", policy)
    assert "unique-local" == verdict("https://[fd00:2::5]/", policy)
    assert "v4-mapped" == verdict("https://[::ffff:10.1.2.3]/", policy)
    assert "address-spelling" == verdict("https://0x0a010203/", policy)
    assert "port" == verdict("https://10.1.2.3:22/", policy)


def test_a_local_name_is_left_to_the_resolver_where_a_network_is_allowed():
    policy = Policy(allowed=(ipaddress.ip_network("172.18.0.0/16"),))

    assert "https://receiver/hook" == verdict("https://receiver/hook", policy)


def test_a_refusal_says_the_rule_and_what_it_means():
    with pytest.raises(UrlRefused) as caught:
        check_url("https://user@example.com/", PUBLIC)

    assert "the URL is refused: it has a user name or a password before the host (rule: userinfo)" == str(
        caught.value
    )


def test_the_origin_of_a_target_leaves_out_what_may_be_a_token():
    target = check_url("https://[2606:4700::1]:8443/hook?token=secret", PUBLIC)

    assert "https://[2606:4700::1]:8443" == target.origin


# --- redirects --------------------------------------------------------------------------------------------------


@A5
@pytest.mark.parametrize(
    ("location", "means"),
    [
        ("/b", "https://example.com/b"),
        ("b?c", "https://example.com/a/b?c"),
        ("?c", "https://example.com/a/?c"),
        ("//other.example.com/b", "https://other.example.com/b"),
        ("https://other.example.com:8443/", "https://other.example.com:8443/"),
        ("http://other.example.com/", "scheme"),
        ("https://127.0.0.1/", "loopback"),
        ("//127.0.0.1/", "loopback"),
        ("//2130706433/", "address-spelling"),
        ("//[::1]/", "loopback"),
        ("//[::1/", "not-a-url"),
        ("\\\\127.0.0.1\\", "backslash"),
        ("https://exa\tmple.com/", "character"),
        ("//user@example.com/", "userinfo"),
        ("file:///etc/passwd", "scheme"),
        ("https://example.com:6379/", "port"),
        ("https://localhost/", "local-name"),
        (f"/{'a' * 2_048}", "too-long"),
    ],
)
def test_a_redirect_is_judged_like_the_first_url(location, means):
    source = check_url("https://example.com/a/", PUBLIC)
    try:
        found = check_redirect(source, location, PUBLIC).url
    except UrlRefused as refused:
        found = refused.rule

    assert means == found
