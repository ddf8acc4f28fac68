"""The table of a request's states, and the making of ids."""

import uuid

import pytest

from tests.support import states_page
from headrace.core.request import FINAL, MOVES, IllegalMove, Move, State, after, new_request_id


def test_no_move_leaves_a_final_state():
    leaving = [state for state, _ in MOVES if state in FINAL]

    assert leaving == []


def test_every_state_can_reach_an_end():
    can_end = set(FINAL)
    for _ in State:
        can_end |= {state for (state, _), then in MOVES.items() if then in can_end}

    assert can_end == set(State)


@pytest.mark.parametrize("state", sorted(FINAL, key=lambda state: state.value))
@pytest.mark.parametrize("move", list(Move))
def test_a_final_state_refuses_every_move(state, move):
    with pytest.raises(IllegalMove, match=move.value):
        after(state, move)


def test_a_cancelled_request_stays_cancelled_however_its_runner_ends_it():
    endings = {after(after(State.RUNNING, Move.CANCEL), move) for move in (Move.FINISH, Move.FAIL)}

    assert endings == {State.CANCELLED}


def test_a_request_id_is_a_version_4_uuid_that_names_its_minute_and_its_node():
    id_ = new_request_id(bytes(range(16)), 0xBEEF, 0x5ABC * 64 + 63.9)

    parsed = uuid.UUID(id_)
    assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
    assert id_.startswith("abc")
    assert id_.endswith("beef")


def test_94_bits_of_an_id_stay_random():
    zero = uuid.UUID(new_request_id(b"\x00" * 16, 0, 7)).int
    ones = uuid.UUID(new_request_id(b"\xff" * 16, 0, 7)).int

    assert (zero ^ ones).bit_count() == 94


@pytest.mark.parametrize("now", [-1.0, 2.0**32, 2.0**40])
def test_a_wrong_clock_still_makes_an_id(now):
    assert uuid.UUID(new_request_id(bytes(16), 0, now)).version == 4


def test_the_page_shows_the_table_as_it_is():
    assert states_page.PAGE.read_text() == states_page.page(states_page.PAGE.read_text())
