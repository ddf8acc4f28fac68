"""The local CA and the server's certificate: for which names, how long, and what strict clients make of them."""

import datetime as dt
import os
import ssl
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from headrace.store.certificates import CA_DAYS, FAL_NAMES, LEAF_DAYS, make_authority, make_leaf, names_of
from headrace.store.files import FileBusy, locked
from headrace.store.tls import TlsFolder

NOW = dt.datetime.now(dt.timezone.utc)


def days(count):
    return dt.timedelta(days=count)


@pytest.fixture
def folder(tmp_path):
    return TlsFolder(tmp_path / "data" / "tls")


def hear(name: str, folder: TlsFolder) -> str:
    """Let a client that is as strict as Python 3.13 greet the server as `name`; return "" or why it refuses."""
    client = ssl.create_default_context(cafile=folder.ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    client.set_alpn_protocols(["h2", "http/1.1"])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = folder.context().wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
    assert ours.selected_alpn_protocol() == "http/1.1"
    return ""


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "more", "shown"),
    [
        ("127.0.0.1", [], "localhost, 127.0.0.1, ::1"),
        ("0.0.0.0", [], "localhost, 127.0.0.1, ::1"),
        ("::", ["GPU.Example.org"], "localhost, gpu.example.org, 127.0.0.1, ::1"),
        ("10.1.2.3", ["10.1.2.3", "gpu"], "localhost, gpu, 127.0.0.1, ::1, 10.1.2.3"),
        ("fe80::1%eth0", [], "localhost, 127.0.0.1, ::1, fe80::1"),
        ("gpu.example.org", ["localhost"], "localhost, gpu.example.org, 127.0.0.1, ::1"),
    ],
)
def test_a_server_is_named_by_its_host_and_what_it_is_given(host, more, shown):
    assert shown == str(names_of(host, more))


def test_fals_names_are_taken_on_only_when_impersonating():
    assert not set(FAL_NAMES) & set(names_of("127.0.0.1").hosts)
    assert set(FAL_NAMES) < set(names_of("127.0.0.1", impersonate=True).hosts)


# --- what clients make of it --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "::1", "gpu.example.org", "10.1.2.3"])
def test_a_strict_client_that_trusts_the_ca_accepts_every_name(folder, name):
    folder.prepare(names_of("10.1.2.3", ["gpu.example.org"]), NOW)

    assert "" == hear(name, folder)


def test_a_client_refuses_a_name_that_was_not_asked_for(folder):
    folder.prepare(names_of("127.0.0.1"), NOW)

    assert "not valid for 'fal.run'" in hear("fal.run", folder)


@pytest.mark.parametrize("name", ["fal.run", "example.org", "org", "notlocalhost", "10.1.2.3", "::2"])
def test_the_ca_cannot_vouch_for_a_name_beyond_its_own(folder, name):
    folder.prepare(names_of("127.0.0.1", ["gpu.example.org"]), NOW)
    authority = make_authority(names_of("127.0.0.1", ["gpu.example.org"]), NOW)
    forged = make_leaf(authority, names_of("127.0.0.1", [name]), NOW)
    replace_by(folder, authority, forged)

    assert "permitted subtree violation" == hear(name, folder)
    assert "permitted subtree violation" == hear("localhost", folder)


def replace_by(folder, authority, leaf):
    key = leaf.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    folder.ca.write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    folder.server.write_bytes(key + leaf.certificate.public_bytes(Encoding.PEM))


def test_openssl_finds_nothing_to_complain_of_in_strict_mode(folder, tmp_path):
    folder.prepare(names_of("127.0.0.1"), NOW)
    command = ["openssl", "verify", "-x509_strict", "-check_ss_sig", "-purpose", "sslserver"]
    told = subprocess.run(
        [*command, "-verify_hostname", "localhost", "-CAfile", folder.ca, folder.server],
        capture_output=True,
        text=True,
    )

    assert (0, "") == (told.returncode, told.stderr)


def test_tls_before_1_2_is_refused(folder):
    folder.prepare(names_of("127.0.0.1"), NOW)

    assert ssl.TLSVersion.TLSv1_2 == folder.context().minimum_version


# --- the files ----------------------------------------------------------------------------------------------


def test_keys_are_for_the_owner_alone_and_the_ca_for_all(folder):
    folder.prepare(names_of("127.0.0.1"), NOW)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.folder.glob("*.pem")}
    assert {"ca.pem": 0o644 & ~umask(), "ca-key.pem": 0o600, "server.pem": 0o600} == modes
    assert [0o700, 0o700] == [stat.S_IMODE(path.stat().st_mode) for path in (folder.folder, folder.folder.parent)]


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.folder.glob("*.pem")}


def test_a_second_start_changes_nothing_and_says_nothing(folder):
    told = folder.prepare(names_of("127.0.0.1"), NOW)
    before = contents(folder)

    assert f"Made a local CA: {folder.ca}" == told
    assert None is folder.prepare(names_of("127.0.0.1"), NOW)
    assert before == contents(folder)


def test_a_certificate_lasts_397_days_at_most_and_is_renewed_90_before_its_end(folder):
    folder.prepare(names_of("127.0.0.1"), NOW)
    before = contents(folder)
    until = folder.state(NOW).leaf_until

    assert LEAF_DAYS - 1 == (until - NOW.date()).days
    assert None is folder.prepare(names_of("127.0.0.1"), NOW + days(300))
    assert before == contents(folder)
    assert None is folder.prepare(names_of("127.0.0.1"), NOW + days(310))
    assert before["ca.pem"] == contents(folder)["ca.pem"]
    assert folder.state(NOW).leaf_until > until


def test_another_name_needs_another_ca_and_that_is_said(folder):
    folder.prepare(names_of("127.0.0.1"), NOW)
    before = contents(folder)
    told = folder.prepare(names_of("127.0.0.1", ["gpu.example.org"], impersonate=True), NOW)

    assert "the old one does not permit gpu.example.org, fal.run, queue.fal.run, rest.fal.ai" in told
    assert before["ca.pem"] != contents(folder)["ca.pem"]
    assert "" == hear("gpu.example.org", folder) == hear("queue.fal.run", folder)


def test_a_name_that_the_ca_permits_already_needs_only_another_certificate(folder):
    folder.prepare(names_of("127.0.0.1", impersonate=True), NOW)
    before = contents(folder)

    assert None is folder.prepare(names_of("127.0.0.1", ["127.0.0.7", "a.localhost"]), NOW)
    assert before["ca.pem"] == contents(folder)["ca.pem"]
    assert "" == hear("127.0.0.7", folder) == hear("a.localhost", folder)
    assert "not valid for 'fal.run'" in hear("fal.run", folder)


@pytest.mark.parametrize("after", [days(CA_DAYS - LEAF_DAYS), days(-30)], ids=["too old", "not begun"])
def test_a_ca_that_would_not_outlive_its_certificate_is_replaced(folder, after):
    folder.prepare(names_of("127.0.0.1"), NOW)
    before = contents(folder)
    told = folder.prepare(names_of("127.0.0.1"), NOW + after)

    assert "Made a new local CA, since the old one is good from" in told
    assert before["ca.pem"] != contents(folder)["ca.pem"]


@pytest.mark.parametrize("name", ["ca.pem", "ca-key.pem", "server.pem"])
@pytest.mark.parametrize("damage", ["absent", "empty", "garbage", "another's"])
def test_damage_is_seen_and_the_next_start_mends_it(folder, tmp_path, name, damage):
    folder.prepare(names_of("127.0.0.1"), NOW)
    path = folder.folder / name
    if damage == "another's":
        other = TlsFolder(tmp_path / "other")
        other.prepare(names_of("127.0.0.1"), NOW)
        path.write_bytes((other.folder / name).read_bytes())
    elif damage == "absent":
        path.unlink()
    else:
        path.write_bytes(b"" if damage == "empty" else b"-----BEGIN CERTIFICATE-----\nAAAA\n")

    state = folder.state(NOW)
    assert state is None if (name, damage) == ("ca.pem", "absent") else state.fault
    folder.prepare(names_of("127.0.0.1"), NOW)
    assert None is folder.state(NOW).fault
    assert "" == hear("localhost", folder)


def test_the_state_of_a_folder_says_what_was_made_and_when_it_ends(folder):
    nothing = folder.state(NOW)
    folder.prepare(names_of("127.0.0.1"), NOW)
    state = folder.state(NOW)

    assert None is nothing
    assert (None, "localhost, 127.0.0.1, ::1") == (state.fault, state.names)
    assert CA_DAYS - 1 == (state.ca_until - NOW.date()).days
    assert "server's certificate was good from" in folder.state(NOW + days(400)).fault


def test_two_starts_at_once_take_turns(folder, monkeypatch):
    from headrace.store import files

    monkeypatch.setattr(files, "LOCK_WAIT_S", 0.05)
    folder.prepare(names_of("127.0.0.1"), NOW)

    with locked(folder.folder / ".lock"), pytest.raises(FileBusy, match="fuser"):
        folder.prepare(names_of("127.0.0.1"), NOW)


# --- what clients are told to trust -------------------------------------------------------------------------


def block(text: bytes) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"\n-----END CERTIFICATE-----"


def test_a_trust_file_holds_our_ca_first_and_every_other_once(folder, tmp_path):
    folder.prepare(names_of("127.0.0.1"), NOW)
    (tmp_path / "a").write_bytes(b"# One\n" + block(b"1") + b"\n# Two\n" + block(b"2"))
    (tmp_path / "b").write_bytes(block(b"2") + b"\n" + block(b"3") + b"\n")

    path = folder.write_trust("bundle.pem", [tmp_path / "a", tmp_path / "b"])

    ours = folder.ca.read_bytes().strip()
    assert b"\n".join([ours, block(b"1"), block(b"2"), block(b"3"), b""]) == path.read_bytes()


def test_a_trust_file_made_of_itself_keeps_the_others_and_drops_the_ca_of_that_time(folder, tmp_path):
    folder.prepare(names_of("127.0.0.1"), NOW)
    (tmp_path / "a").write_bytes(block(b"1"))
    path = folder.write_trust("bundle.pem", [tmp_path / "a"])
    folder.prepare(names_of("10.1.2.3"), NOW)

    folder.write_trust("bundle.pem", [path])

    assert b"\n".join([folder.ca.read_bytes().strip(), block(b"1"), b""]) == path.read_bytes()
