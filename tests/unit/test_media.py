"""Media types: what a name means, what a browser is told, what the head of a picture says."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.core.media import (
    BYTES,
    clean_type,
    is_inline,
    picture_size,
    picture_type,
    suffix_of,
    told_type,
    type_of_name,
)

A8 = pytest.mark.promise("A8")


@pytest.mark.parametrize(
    ("said", "type_"),
    [
        ("image/png", "image/png"), (" Image/PNG ", "image/png"), ("text/html; charset=utf-8", "text/html"),
        ("image/svg+xml", "image/svg+xml"), (None, BYTES), ("", BYTES), ("png", BYTES), ("image/", BYTES),
        ("image/png\r\nX: y", BYTES), ("a/b/c", BYTES), ("*/*", BYTES), ("image/png,text/html", BYTES),
        ("x" * 70 + "/y", BYTES), ("ïmage/png", BYTES),
    ],
)  # fmt: skip
def test_a_type_is_a_type_or_just_bytes(said, type_):
    assert clean_type(said) == type_


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("a.png", "image/png"), ("a.JPG", "image/jpeg"), ("a.b.webp", "image/webp"), ("a", BYTES), (None, BYTES),
        ("a.unheard", BYTES), ("png", "image/png"), ("a.glb", "model/gltf-binary"),
    ],
)  # fmt: skip
def test_the_end_of_a_name_says_what_it_is(name, type_):
    assert type_of_name(name) == type_


def test_a_type_has_the_shortest_of_its_ends():
    assert [suffix_of(type_) for type_ in ("image/jpeg", "image/tiff", "audio/ogg", "x/y")] == [
        ".jpg", ".tif", ".oga", ".bin",
    ]  # fmt: skip


#: Whatever a browser could run, style a page with, or show as one.
ACTIVE = [
    "text/html", "application/xhtml+xml", "text/xml", "application/xml", "application/rss+xml", "text/javascript",
    "application/javascript", "application/ecmascript", "text/ecmascript", "application/x-javascript",
    "text/jscript", "text/livescript", "text/css", "application/wasm", "text/cache-manifest", "text/x-component",
    "application/x-shockwave-flash", "application/manifest+json", "multipart/x-mixed-replace", "message/rfc822",
    "text/vbscript", "application/java-archive", "application/x-unheard-of",
]  # fmt: skip


@A8
@pytest.mark.parametrize("type_", ACTIVE)
def test_what_could_run_is_told_as_bytes_and_is_a_download(type_):
    assert told_type(type_) == BYTES
    assert not is_inline(type_)


@A8
@pytest.mark.parametrize(
    "type_", ["image/svg+xml", "application/pdf", "application/json", "text/csv", "font/woff2"]
)
def test_what_is_harmless_but_as_a_page_is_a_download(type_):
    assert told_type(type_).startswith(type_)
    assert not is_inline(type_)


@pytest.mark.parametrize("type_", ["image/png", "image/webp", "video/mp4", "audio/mpeg"])
def test_pictures_sound_and_film_are_shown(type_):
    assert told_type(type_) == type_
    assert is_inline(type_)


def test_plain_text_says_how_it_is_encoded():
    assert told_type("text/plain") == "text/plain; charset=utf-8"


# --- pictures, written down by hand ---------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x01\x02\0\0\0\x03\x08\x02\0\0\0"
GIF = b"GIF89a\x02\x01\x03\0\xf0\0\0"
JPEG = (
    b"\xff\xd8\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0" b"\xff\xff\xc4\0\4ab" b"\xff\xc2\0\x0b\x08\0\x03\x01\x02\x03\1\x11\0"
)  # fmt: skip
WEBP_LOSSY = b"RIFF\x24\0\0\0WEBPVP8 \x18\0\0\0\x30\x01\0\x9d\x01\x2a\x02\x01\x03\0\0\0"
WEBP_LOSSLESS = b"RIFF\x24\0\0\0WEBPVP8L\x10\0\0\0\x2f\x01\x81\0\0\0\0\0\0\0"
WEBP_EXTENDED = b"RIFF\x24\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0\x01\x01\0\x02\0\0"


@pytest.mark.parametrize(
    ("content", "type_", "size"),
    [
        (PNG, "image/png", (258, 3)),
        (GIF, "image/gif", (258, 3)),
        (JPEG, "image/jpeg", (258, 3)),
        (WEBP_LOSSY, "image/webp", (258, 3)),
        (WEBP_LOSSLESS, "image/webp", (258, 3)),
        (WEBP_EXTENDED, "image/webp", (258, 3)),
        (b"<svg/>", None, None),
        (b"", None, None),
        (b"\xff\xd8\xff", "image/jpeg", None),
        (b"RIFF\x24\0\0\0WAVEfmt ", None, None),
    ],
)
def test_the_head_of_a_picture_says_what_it_is_and_how_large(content, type_, size):
    assert picture_type(content) == type_
    assert picture_size(content) == size


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([PNG, GIF, JPEG, WEBP_LOSSY, WEBP_LOSSLESS, WEBP_EXTENDED]), st.data())
def test_a_damaged_head_never_raises(content, data):
    cut = content[: data.draw(st.integers(0, len(content)))]
    at = data.draw(st.integers(0, max(0, len(cut) - 1)))
    damaged = cut[:at] + data.draw(st.binary(max_size=3)) + cut[at + 1 :]

    size = picture_size(damaged)

    assert size is None or all(isinstance(side, int) for side in size)
