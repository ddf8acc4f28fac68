"""The page's sessions: a code opens the page once, and what it gives is good for as long as its key is."""

import pytest

from headrace.core.errors import RequestError
from headrace.core.keys import KeyId
from headrace.gateway.page_sessions import (
    ALL_MAX,
    CODE_S,
    CODES_MAX,
    SESSION_S,
    SESSIONS_MAX,
    PageSessions,
    link,
)

ADA, BOB = KeyId("hr_aaaaaaaaaaaa"), KeyId("hr_bbbbbbbbbbbb")


class Keys:
    """Two keys, by their texts."""

    def __init__(self) -> None:
        self.good = {ADA, BOB}

    def verify(self, text: str) -> KeyId | None:
        id_ = KeyId(text.partition(":")[0])
        return id_ if id_ in self.good else None

    def knows(self, id_: KeyId) -> bool:
        return id_ in self.good

    def make(self) -> KeyId:
        """One more key."""
        id_ = KeyId(f"hr_{len(self.good):012}")
        self.good.add(id_)
        return id_


class Clock:
    now = 1_000_000.5

    def __call__(self) -> float:
        return self.now


class Room:
    def __init__(self) -> None:
        self.keys, self.clock = Keys(), Clock()
        self.sessions = PageSessions(self.keys, clock=self.clock)

    def key(self, owner: KeyId = ADA) -> str:
        """A session's key."""
        session = self.sessions.exchange(self.sessions.new_code(owner)[0])
        assert session is not None
        return session[0]


def test_a_code_gives_a_key_that_stands_for_the_key_it_was_made_with():
    room = Room()

    assert room.sessions.verify(room.key(ADA)) == ADA
    assert room.sessions.verify(room.key(BOB)) == BOB


def test_a_code_works_once():
    room = Room()
    code, _ = room.sessions.new_code(ADA)

    assert room.sessions.exchange(code) is not None
    assert room.sessions.exchange(code) is None


def test_a_code_is_good_for_ten_minutes():
    room = Room()
    first, expires_at = room.sessions.new_code(ADA)
    second, _ = room.sessions.new_code(ADA)

    assert (CODE_S, expires_at) == (600, 1_000_600)
    room.clock.now += 599
    assert room.sessions.exchange(first) is not None
    room.clock.now += 1
    assert room.sessions.exchange(second) is None


def test_codes_and_keys_are_256_random_bits_and_never_the_same():
    room = Room()
    texts = [room.sessions.new_code(ADA)[0] for _ in range(50)] + [room.key() for _ in range(50)]

    assert len(set(texts)) == 100
    assert {len(text.removeprefix("page:")) for text in texts} == {43}


def test_what_was_never_made_opens_nothing():
    room = Room()
    code, _ = room.sessions.new_code(ADA)
    key = room.key()

    for text in ("", "page:", "page:nobody", code, key[:-1], key.removeprefix("page:"), "\ud800"):
        assert room.sessions.verify(text) is None
    for text in ("", "nobody", code[:-1], key, "\ud800"):
        assert room.sessions.exchange(text) is None


def test_the_nodes_own_keys_stay_good_beside_the_sessions():
    room = Room()

    assert room.sessions.verify(f"{ADA}:secret") == ADA
    assert room.sessions.verify("hr_cccccccccccc:secret") is None
    assert [room.sessions.knows(ADA), room.sessions.knows(KeyId("hr_cccccccccccc"))] == [True, False]


def test_a_session_ends_after_twelve_hours():
    room = Room()
    key = room.key()

    room.clock.now += SESSION_S - 1
    assert room.sessions.verify(key) == ADA
    room.clock.now += 1
    assert room.sessions.verify(key) is None


def test_a_session_and_a_code_end_with_their_key():
    room = Room()
    key, (code, _) = room.key(ADA), room.sessions.new_code(ADA)
    others = room.key(BOB)

    room.keys.good.remove(ADA)

    assert room.sessions.verify(key) is None
    assert room.sessions.exchange(code) is None
    assert room.sessions.verify(others) == BOB


def test_of_too_many_codes_the_oldest_ends():
    room = Room()
    codes = [room.sessions.new_code(ADA)[0] for _ in range(CODES_MAX + 1)]

    assert [room.sessions.exchange(code) is not None for code in (codes[0], codes[1], codes[-1])] == [
        False,
        True,
        True,
    ]


def test_of_too_many_sessions_the_oldest_ends():
    room = Room()
    keys = [room.key() for _ in range(SESSIONS_MAX + 1)]

    assert [room.sessions.verify(key) for key in (keys[0], keys[1], keys[-1])] == [None, ADA, ADA]


def test_the_codes_and_sessions_of_one_key_throw_out_nobody_elses():
    room = Room()
    others, (code, _) = room.key(BOB), room.sessions.new_code(BOB)

    for _ in range(SESSIONS_MAX + 1):
        room.key(ADA)
    for _ in range(CODES_MAX + 1):
        room.sessions.new_code(ADA)

    assert room.sessions.verify(others) == BOB
    assert room.sessions.exchange(code) is not None


def test_when_all_keys_have_too_many_the_next_is_refused_and_no_code_is_used_up():
    room = Room()
    (code, _), owner = room.sessions.new_code(BOB), ADA
    for n in range(ALL_MAX):
        owner = room.keys.make() if not n % SESSIONS_MAX else owner
        last = room.key(owner)

    with pytest.raises(RequestError) as refused:
        room.sessions.exchange(code)

    assert (refused.value.status, refused.value.type) == (429, "overloaded")
    room.keys.good.remove(owner)
    assert room.sessions.exchange(code) is not None
    assert room.sessions.verify(last) is None


def test_expired_codes_leave_room_before_good_ones_do():
    room = Room()
    for _ in range(CODES_MAX - 1):
        room.sessions.new_code(ADA)
    room.clock.now += CODE_S
    good = [room.sessions.new_code(ADA)[0] for _ in range(CODES_MAX)]

    assert room.sessions.exchange(good[0]) is not None


def test_a_link_has_its_code_in_the_fragment_which_no_browser_sends():
    assert link("http://127.0.0.1:8080", "abc") == "http://127.0.0.1:8080/#code=abc"
