"""Tokens for reading one request: what opens which, until when; and the file behind them."""

import asyncio
import json
import stat

import pytest

from headrace.core.errors import RequestError
from headrace.core.keys import KeyFault, KeyId
from headrace.core.reading_token import SECRET_BYTES, ReadingToken, read_token, token_text
from headrace.gateway.auth import Authenticator
from headrace.gateway.tokens import ReadingTokens
from headrace.store import token_file
from headrace.store.port import StoreBusy, StoreUnavailable
from headrace.store.token_file import TokenFile

SECRET = bytes(range(SECRET_BYTES))
ID = "0f8fad5b-d9cb-469f-a165-70867728950e"
OTHER_ID = "0f8fad5b-d9cb-469f-a165-70867728950f"
OWNER = KeyId("hr_abcdefgh2345")
TOKEN = ReadingToken(ID, 2_000_000_000, 7, OWNER)
TEXT = "2000000000.7.hr_abcdefgh2345.8YxZduu-NxH7M6Is2vn8Dza7pJq0UQWMiL0l2NMIv5I"


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1_900_000_000.0

    def __call__(self) -> float:
        return self.now


class Keys:
    """Key stores know one key, until it is revoked."""

    def __init__(self) -> None:
        self.is_good = True

    def verify(self, text: str) -> KeyId | None:
        return OWNER if self.is_good and text == "key" else None

    def knows(self, id_: KeyId) -> bool:
        return self.is_good and id_ == OWNER


class Live:
    """What a token is made for."""

    def __init__(self, id_: str, owner: KeyId | None = OWNER) -> None:
        self.id = id_
        self.owner = owner


class Rooms:
    """The tokens of a node, and all they depend on."""

    def __init__(self, tmp_path) -> None:
        self.path = tmp_path / "reading-tokens.json"
        self.clock = Clock()
        self.keys = Keys()
        self.start()

    def start(self) -> None:
        self.tokens = ReadingTokens(TokenFile(self.path), clock=self.clock)

    def make(self, id_: str = ID, life_s: int = 60) -> str:
        return self.tokens.text(self.tokens.make(Live(id_), life_s))

    def revoke(self, id_: str = ID) -> None:
        asyncio.run(self.tokens.revoke(id_))

    def opens(self, text: str, id_: str = ID) -> str | None:
        """Whose request it opens, or the words of the 401."""
        try:
            return self.tokens.owner(text, id_, Authenticator(self.keys))
        except RequestError as error:
            assert error.status == 401
            return error.message


@pytest.fixture
def rooms(tmp_path):
    return Rooms(tmp_path)


# --- the text ---------------------------------------------------------------------------------------------------


def test_a_token_is_read_as_it_was_made():
    assert token_text(TOKEN, SECRET) == TEXT
    assert read_token(TEXT, ID, SECRET) == TOKEN


def test_where_no_key_is_needed_a_token_names_none():
    token = ReadingToken(ID, 1, 2, None)

    assert token_text(token, SECRET).startswith("1.2..")
    assert read_token(token_text(token, SECRET), ID, SECRET) == token


def test_with_another_request_or_secret_it_is_none():
    assert read_token(TEXT, OTHER_ID, SECRET) is None
    assert read_token(TEXT, ID, bytes(SECRET_BYTES)) is None


def test_no_letter_of_it_can_be_changed():
    for at, letter in enumerate(TEXT):
        other = "b" if letter != "b" else "c"
        for changed in (
            TEXT[:at] + other + TEXT[at + 1 :],
            TEXT[:at] + TEXT[at + 1 :],
            TEXT[:at] + "9" + TEXT[at:],
        ):
            if changed != TEXT:
                assert read_token(changed, ID, SECRET) is None, changed


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "text",
    ["", ".", "...", "x", "é", "\0", "a" * 10_000, f"{TEXT}\n", f" {TEXT}", f"{TEXT}=", "٢٠٠.1..x", TEXT.replace(".", "%2e")],
)  # fmt: skip
def test_what_is_no_token_is_none(text):
    assert read_token(text, ID, SECRET) is None


# --- what it opens ----------------------------------------------------------------------------------------------


def test_a_token_opens_its_own_request_until_it_expires(rooms):
    text = rooms.make(life_s=60)

    assert rooms.opens(text) == OWNER
    assert rooms.opens(text, OTHER_ID) == "This token is not one for this request."
    rooms.clock.now += 59
    assert rooms.opens(text) == OWNER
    rooms.clock.now += 1
    assert rooms.opens(text) == "This token has expired."


def test_a_revocation_ends_all_tokens_of_its_request_and_no_other(rooms):
    first, second, others = rooms.make(), rooms.make(), rooms.make(OTHER_ID)

    rooms.revoke()

    assert rooms.opens(first) == rooms.opens(second) == "This token was revoked."
    assert rooms.opens(others, OTHER_ID) == OWNER
    assert rooms.opens(rooms.make()) == OWNER  # made in the same microsecond, for all the clock says


def test_tokens_and_revocations_survive_a_restart(rooms):
    revoked, good = rooms.make(), rooms.make(OTHER_ID)
    rooms.revoke()

    rooms.start()

    assert rooms.opens(revoked) == "This token was revoked."
    assert rooms.opens(good, OTHER_ID) == OWNER


def test_a_clock_that_goes_back_brings_no_revoked_token_back(rooms):
    revoked = rooms.make(life_s=86_400)
    rooms.revoke()
    rooms.clock.now -= 3_600
    rooms.start()

    assert rooms.opens(revoked) == "This token was revoked."
    assert rooms.opens(rooms.make()) == OWNER


def test_a_token_ends_with_the_key_that_made_it(rooms):
    text = rooms.make()
    rooms.keys.is_good = False

    assert rooms.opens(text) == "The key that made this token was revoked."


def test_without_the_file_every_token_is_void(rooms):
    text = rooms.make()
    rooms.path.unlink()
    rooms.start()

    assert rooms.opens(text) == "This token is not one for this request."


# --- the file ---------------------------------------------------------------------------------------------------


def test_the_file_is_its_owners_alone_and_made_once(tmp_path):
    path = tmp_path / "data" / "reading-tokens.json"

    secret = TokenFile(path).secret

    assert len(secret) == SECRET_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert TokenFile(path).secret == secret
    TokenFile(path).revoke(ID, 5, oldest=0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_revocations_whose_tokens_have_expired_are_forgotten(rooms):
    rooms.revoke()
    rooms.clock.now += 90_000
    rooms.revoke(OTHER_ID)

    assert list(json.loads(rooms.path.read_text())["revoked"]) == [OTHER_ID]


def test_more_revocations_than_may_be_are_refused_and_nothing_is_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(token_file, "REVOKED_MAX", 1)
    file = TokenFile(tmp_path / "tokens.json")
    file.revoke(ID, 5, oldest=0)

    with pytest.raises(StoreBusy):
        file.revoke(OTHER_ID, 6, oldest=0)
    assert (file.revoked(ID), file.revoked(OTHER_ID)) == (5, 0)


def test_a_revocation_that_cannot_be_kept_is_none(tmp_path):
    folder = tmp_path / "data"
    file = TokenFile(folder / "tokens.json")
    (folder / "tokens.json").unlink()
    folder.rmdir()

    with pytest.raises(StoreUnavailable):
        file.revoke(ID, 5, oldest=0)
    assert file.revoked(ID) == 0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 1}', b'{"version": 2, "secret": "00", "revoked": {}}',
     b'{"version": 1, "secret": "xy", "revoked": {}}', b'{"version": 1, "secret": "00", "revoked": {}}',
     b'{"version": 1, "secret": "%b", "revoked": []}' % (b"00" * 32), b"[" * 100_000],
)  # fmt: skip
def test_a_damaged_file_is_told_and_left_as_it_is(tmp_path, content):
    path = tmp_path / "reading-tokens.json"
    path.write_bytes(content)

    with pytest.raises(KeyFault, match="damaged; restore it"):
        TokenFile(path)
    assert path.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "data").write_text("in the way")

    with pytest.raises(KeyFault, match="cannot be read or made .File exists."):
        TokenFile(tmp_path / "data" / "reading-tokens.json")
