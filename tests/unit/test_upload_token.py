"""Tokens for sending files: whose they are, and that nobody makes one."""

import pytest

from headrace.core import reading_token
from headrace.core.keys import KeyId
from headrace.core.upload_token import UploadToken, read_token, token_text

SECRET = bytes(range(32))
TOKEN = UploadToken(1_800_000_000, KeyId("hr_abcdefghijkl"))
TEXT = token_text(TOKEN, SECRET)


def test_a_token_says_what_was_put_into_it():
    nobodys = UploadToken(1, None)

    assert read_token(TEXT, SECRET) == TOKEN
    assert read_token(token_text(nobodys, SECRET), SECRET) == nobodys


def test_it_is_one_word_of_a_header_and_no_key():
    assert TEXT.startswith("hru_1800000000.hr_abcdefghijkl.")
    assert TEXT.isascii() and TEXT.isprintable() and not set(TEXT) & set(" :")


@pytest.mark.parametrize("place", range(len(TEXT)))
def test_a_token_with_another_letter_is_none(place):
    other = "A" if TEXT[place] != "A" else "B"

    assert read_token(TEXT[:place] + other + TEXT[place + 1 :], SECRET) is None


@pytest.mark.parametrize(
    "text", ["", "hru_", TEXT[:-1], TEXT + "A", " " + TEXT, TEXT.removeprefix("hru_"), "hr_x:y"]
)
def test_what_is_not_quite_a_token_is_none(text):
    assert read_token(text, SECRET) is None


def test_another_nodes_token_and_one_for_another_purpose_are_none():
    reading = reading_token.token_text(reading_token.ReadingToken("r", TOKEN.expires_at, 1, TOKEN.owner), SECRET)

    assert read_token(TEXT, bytes(32)) is None
    assert read_token(f"hru_{reading}", SECRET) is None
