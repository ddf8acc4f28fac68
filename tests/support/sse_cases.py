"""Streams and what they mean: the parse table. Bytes in, events out, and what is remembered at the end.

The themes are those of the public suites (web-platform-tests `eventsource/`, Chromium's parser tests, LaunchDarkly's
contract tests, Envoy's parser tests), the cases our own. `D` is an ordinary event; an id shows in every event after it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    name: str
    stream: bytes
    events: list[tuple[str, str, str]]
    last_event_id: str = ""
    retry_ms: int | None = None
    starts_with_id: str = ""


def D(data: str, id: str = "", type: str = "message") -> tuple[str, str, str]:
    return (type, data, id)


def case(name: str, stream: bytes, *events: tuple[str, str, str], id: str = "", retry: int | None = None) -> Case:
    return Case(name, stream, list(events), id, retry)


BOM = b"\xef\xbb\xbf"
#: Streams in which each `\n` may be any line end. (name, stream, events, last id, retry)
ANY_LINE_END = [
    ("one event", b"data: a\n\n", [D("a")], "", None),
    ("two events", b"data: a\n\ndata: b\n\n", [D("a"), D("b")], "", None),
    ("two lines", b"data: a\ndata: b\n\n", [D("a\nb")], "", None),
    ("an empty line of data", b"data: a\ndata:\ndata: b\n\n", [D("a\n\nb")], "", None),
    ("only empty data", b"data:\n\n", [D("")], "", None),
    ("two empty lines of data", b"data\ndata\n\n", [D("\n")], "", None),
    ("a named event", b"event: x\ndata: a\n\ndata: b\n\n", [D("a", type="x"), D("b")], "", None),
    ("an id", b"id: 1\ndata: a\n\ndata: b\n\n", [D("a", "1"), D("b", "1")], "1", None),
    ("an id alone", b"id: 1\n\ndata: a\n\n", [D("a", "1")], "1", None),
    ("an id that is cleared", b"id: 1\ndata: a\n\nid\ndata: b\n\n", [D("a", "1"), D("b")], "", None),
    ("an id cut off", b"data: a\n\nid: 1\ndata: b\n", [D("a")], "", None),
    ("a retry", b"retry: 1500\n\ndata: a\n\n", [D("a")], "", 1500),
    ("a retry cut off", b"retry: 7\n", [], "", 7),
    ("a comment", b": c\ndata: a\n: d\n\n", [D("a")], "", None),
    ("a heartbeat between events", b"data: a\n\n: ping\ndata: b\n\n", [D("a"), D("b")], "", None),
    ("a heartbeat after an id", b"id: 1\ndata: a\n\n: ping\n\ndata: b\n\n", [D("a", "1"), D("b", "1")], "1", None),
    ("blank lines", b"\n\n\ndata: a\n\n\n\ndata: b\n\n\n", [D("a"), D("b")], "", None),
    ("an event that ends with the stream", b"data: a\n\ndata: b\n", [D("a")], "", None),
    ("a line that ends with the stream", b"data: a\n\ndata: b", [D("a")], "", None),
    ("all fields", b"event: x\nid: 1\nretry: 9\ndata: a\ndata: b\n: c\n\n", [D("a\nb", "1", "x")], "1", 9),
    ("a type without data is forgotten", b"event: x\n\ndata: a\n\n", [D("a")], "", None),
    ("unknown fields", b"foo: x\ndata: a\nDATA: b\n\n", [D("a")], "", None),
]

CASES: list[Case] = [
    case(f"{name}, {ending}", stream.replace(b"\n", end), *events, id=id, retry=retry)
    for name, stream, events, id, retry in ANY_LINE_END
    for ending, end in (("LF", b"\n"), ("CR", b"\r"), ("CRLF", b"\r\n"))
] + [
    # Line ends, mixed
    case("LF then CR", b"data: a\n\r", D("a")),
    case("CR then LF is one line end", b"data: a\r\ndata: b\r\n\r\n", D("a\nb")),
    case("CR CRLF", b"data: a\r\r\n", D("a")),
    case("CRLF CR", b"data: a\r\n\r", D("a")),
    case("CRLF LF", b"data: a\r\n\n", D("a")),
    case("LF CRLF", b"data: a\n\r\n", D("a")),
    case("each line its own end", b"data: a\rdata: b\ndata: c\r\n\r\ndata: d\r\rdata: e\n\n", D("a\nb\nc"), D("d"), D("e")),
    case("CRLF LF CRLF, then an event", b"\r\n\n\r\ndata: a\n\n", D("a")),
    case("an LF after a dispatching CR is swallowed", b"data: a\r\r\ndata: b\r\r", D("a"), D("b")),
    case("only the first LF after a CR is swallowed", b"data: a\r\n\n", D("a")),
    case("a line feed alone", b"\n"),
    case("a carriage return alone", b"\r"),
    case("nothing", b""),
    case("U+2028, U+2029 and U+0085 end no line", "data: a\u2028b\u2029c\u0085d\n\n".encode(), D("a\u2028b\u2029c\u0085d")),
    case("vertical tab and form feed end no line", b"data: a\x0bb\x0cc\x1cd\x1ee\n\n", D("a\x0bb\x0cc\x1cd\x1ee")),
    # Spaces and colons
    case("no space", b"data:a\n\n", D("a")),
    case("one space is dropped", b"data: a\n\n", D("a")),
    case("two spaces leave one", b"data:  a\n\n", D(" a")),
    case("a second usual block with two spaces", b"data: a\n\ndata:  b\n\n", D("a"), D(" b")),
    case("a space at the end stays", b"data: a \n\n", D("a ")),
    case("a tab stays", b"data:\ta\n\n", D("\ta")),
    case("space, tab", b"data: \ta\n\n", D("\ta")),
    case("only a space", b"data: \n\n", D("")),
    case("only two spaces", b"data:  \n\n", D(" ")),
    case("two usual blocks, empty", b"data: \n\ndata: \n\n", D(""), D("")),
    case("a no-break space stays", "data:\u00a0a\n\n".encode(), D("\u00a0a")),
    case("colons in the value", b"data: a:b: c\n\n", D("a:b: c")),
    case("a value that is a colon", b"data::\n\n", D(":")),
    case("a value that looks like a field", b"data: data: a\n\n", D("data: a")),
    case("a space before the field's name", b" data: a\n\n"),
    case("a space after the field's name", b"data : a\n\n"),
    case("a tab before the field's name", b"\tdata: a\n\ndata: b\n\n", D("b")),
    case("no colon", b"data\n\n", D("")),
    case("no colon, longer name", b"dataa\n\n"),
    case("a colon alone", b":\n\n"),
    case("a colon alone and data", b":\ndata: a\n\n", D("a")),
    case("a line of spaces is a field without a name of ours", b"data: a\n  \n\n", D("a")),
    # Names
    case("names are case-sensitive", b"Data: a\nDATA: b\ndata: c\n\n", D("c")),
    case("Event, Id, Retry are none", b"Event: x\nId: 1\nRetry: 5\ndata: a\n\n", D("a")),
    case("an unknown field alone", b"foo: bar\n\n"),
    case("a name with NUL", b"data\0: a\n\n"),
    case("a NUL in data stays", b"data: a\0b\n\n", D("a\0b")),
    case("data that only begins alike", b"database: a\n\ndat: b\n\ndata: c\n\n", D("c")),
    # Event types
    case("an empty type is message", b"event:\ndata: a\n\n", D("a")),
    case("a type without colon is message", b"event\ndata: a\n\n", D("a")),
    case("the last type stands", b"event: x\nevent: y\ndata: a\n\n", D("a", type="y")),
    case("an empty type after a type", b"event: x\nevent:\ndata: a\n\n", D("a")),
    case("the type after the data", b"data: a\nevent: x\n\n", D("a", type="x")),
    case("a type with spaces", b"event:  x y \ndata: a\n\n", D("a", type=" x y ")),
    case("a type in another script", "event: é\ndata: a\n\n".encode(), D("a", type="é")),
    case("a type is not for the next", b"event: x\ndata: a\n\ndata: b\n\n", D("a", type="x"), D("b")),
    case("a type with NUL", b"event: a\0b\ndata: a\n\n", D("a", type="a\0b")),
    case("an error", b'event: error\ndata: {"error": {}}\n\n', D('{"error": {}}', type="error")),
    # Ids
    case("the last id stands", b"id: 1\nid: 2\ndata: a\n\n", D("a", "2"), id="2"),
    case("an id after the data", b"data: a\nid: 1\n\n", D("a", "1"), id="1"),
    case("an id with NUL is ignored", b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", D("a", "1"), D("b", "1"), id="1"),
    case("an id of NUL is ignored", b"id: \0\ndata: a\n\n", D("a")),
    case("an id with NUL after a good one", b"id: 1\nid: 2\x003\ndata: a\n\n", D("a", "1"), id="1"),
    case("an empty id", b"id: 1\n\nid:\n\ndata: a\n\n", D("a")),
    case("an id of one space is empty", b"id: 1\n\nid: \n\ndata: a\n\n", D("a")),
    case("an id of two spaces is one", b"id:  \ndata: a\n\n", D("a", " "), id=" "),
    case("an id in another script", "id: …\ndata: a\n\n".encode(), D("a", "…"), id="…"),
    case("an id that is no number", b"id: req.1.2\ndata: a\n\n", D("a", "req.1.2"), id="req.1.2"),
    case("an id-only block at the end", b"data: a\n\nid: 5\n\n", D("a"), id="5"),
    case("an id without its blank line", b"data: a\n\nid: 5\n", D("a")),
    case("an id in a block that is cut", b"id: 1\ndata: a\n\nid: 2\ndata: b", D("a", "1"), id="1"),
    case("an id holds for usual blocks", b"id: 1\n\ndata: a\n\ndata: b\n\n", D("a", "1"), D("b", "1"), id="1"),
    Case("an id from before", b"data: a\n\ndata: b\n\n", [D("a", "old"), D("b", "old")], "old", None, "old"),
    Case("an id from before, cleared", b"data: a\n\nid\n\ndata: b\n\n", [D("a", "old"), D("b")], "", None, "old"),
    Case("an id from before, replaced", b"id: n\ndata: a\n\n", [D("a", "n")], "n", None, "old"),
    Case("an id from before, a cut", b"id: n\ndata: a\n", [], "old", None, "old"),
    # Retry
    case("retry of 0", b"retry: 0\n", retry=0),
    case("retry without space", b"retry:12\n", retry=12),
    case("retry with zeros in front", b"retry: 0012\n", retry=12),
    case("retry twice", b"retry: 1\nretry: 2\n", retry=2),
    case("retry empty", b"retry:\nretry\nretry: \n"),
    case("retry with a letter", b"retry: 12a\n"),
    case("retry with a sign", b"retry: -1\nretry: +1\n"),
    case("retry with a point", b"retry: 1.5\n"),
    case("retry with two spaces", b"retry:  12\n"),
    case("retry with a space behind", b"retry: 12 \n"),
    case("retry with an underscore", b"retry: 1_000\n"),
    case("retry in hexadecimal", b"retry: 0x10\n"),
    case("retry in other digits", "retry: ١٢\nretry: ２\nretry: ²\n".encode()),
    case("a bad retry keeps the good one", b"retry: 5\nretry: x\n", retry=5),
    case("a retry in an event", b"data: a\nretry: 5\n\n", D("a"), retry=5),
    case("a large retry", b"retry: 12345678901234567890\n", retry=12345678901234567890),
    case("retry with NUL", b"retry: 1\x002\n"),
    # BOM
    case("a BOM", BOM + b"data: a\n\n", D("a")),
    case("two BOMs", BOM + BOM + b"data: a\n\ndata: b\n\n", D("b")),
    case("a BOM later on", b"data: a\n\n" + BOM + b"data: b\n\ndata: c\n\n", D("a"), D("c")),
    case("a BOM in data", b"data: " + BOM + b"a\n\n", D("\ufeffa")),
    case("a BOM before a comment", BOM + b": c\ndata: a\n\n", D("a")),
    case("a BOM before a blank line", BOM + b"\ndata: a\n\n", D("a")),
    case("a BOM alone", BOM),
    case("a part of a BOM", b"\xef\xbb"),
    case("a part of a BOM, then an event", b"\xef\xbbdata: a\n\ndata: b\n\n", D("b")),
    case("the other BOM", b"\xfe\xffdata: a\n\ndata: b\n\n", D("b")),
    case("a BOM after a line end", b"\n" + BOM + b"data: a\n\n"),
    # UTF-8
    case("two bytes", "data: é\n\n".encode(), D("é")),
    case("three bytes", "data: …\n\n".encode(), D("…")),
    case("four bytes", "data: 😀\n\n".encode(), D("😀")),
    case("scripts together", "data: aé…😀\n\ndata: b\n\n".encode(), D("aé…😀"), D("b")),
    case("a byte that is none", b"data: a\xffb\n\n", D("a\ufffdb")),
    case("a byte that is none, among usual blocks", b"data: a\n\ndata: \xff\n\ndata: b\n\n", D("a"), D("\ufffd"), D("b")),
    case("a character cut by the line", b"data: a\xe2\x80\ndata: b\n\n", D("a\ufffd\nb")),
    case("a character cut by a letter", b"data: \xe2\x80a\n\n", D("\ufffda")),
    case("a continuation alone", b"data: \x80\xbf\n\n", D("\ufffd\ufffd")),
    case("an overlong slash", b"data: \xc0\xaf\n\n", D("\ufffd\ufffd")),
    case("an overlong line end is none", b"data: a\xc0\x8ab\n\n", D("a\ufffd\ufffdb")),
    case("a surrogate", b"data: \xed\xa0\x80\n\n", D("\ufffd\ufffd\ufffd")),
    case("past the last code point", b"data: \xf4\x90\x80\x80\n\n", D("\ufffd\ufffd\ufffd\ufffd")),
    case("four bytes cut to three", b"data: \xf0\x9f\x98\n\n", D("\ufffd")),
    case("a bad byte in a type and an id", b"event: \xff\nid: \xff\ndata: a\n\n", D("a", "\ufffd", "\ufffd"), id="\ufffd"),
    case("a bad byte in a name", b"da\xffta: a\n\n"),
    case("a bad byte in a comment", b": \xff\xfe\ndata: a\n\n", D("a")),
    # Comments
    case("comments only", b": a\n:b\n:\n\n"),
    case("a comment that looks like data", b":data: a\n\n"),
    case("a comment with a CR in it ends there", b": c\rdata: a\n\n", D("a")),
    case("a long comment", b":" + b"x" * 500 + b"\ndata: a\n\n", D("a")),
    case("a heartbeat inside an event", b"data: a\n: ping\ndata: b\n\n", D("a\nb")),
    case("heartbeats at the end", b"data: a\n\n: ping\n: ping\n", D("a")),
    case("a heartbeat before all", b": ping\ndata: a\n\ndata: b\n\n", D("a"), D("b")),
    # The usual stream
    case("JSON", b'data: {"a": "b\\n\\n: data"}\n\n', D('{"a": "b\\n\\n: data"}')),
    case("[DONE]", b"data: a\n\ndata: [DONE]\n\n", D("a"), D("[DONE]")),
    case("many usual blocks", b"".join(b"data: %d\n\n" % i for i in range(40)), *(D(str(i)) for i in range(40))),
    case("usual, unusual, usual", b"data: a\n\nid: 1\ndata: b\n\ndata: c\n\n", D("a"), D("b", "1"), D("c", "1"), id="1"),
    case("usual with one blank line too many", b"data: a\n\n\ndata: b\n\n", D("a"), D("b")),
    case("usual with two lines in the middle", b"data: a\n\ndata: b\ndata: c\n\ndata: d\n\n", D("a"), D("b\nc"), D("d")),
    case("usual with a field in the middle", b"data: a\n\ndata: b\nevent: x\n\ndata: d\n\n", D("a"), D("b", type="x"), D("d")),
    case("usual without the last line feed", b"data: a\n\ndata: b\n\ndata: c\n", D("a"), D("b")),
]  # fmt: skip

#: What random streams are made of: everything that means something, and some that does not.
PARTS = [
    b"data: ", b"data:", b"data", b"event: ", b"event: error", b"id: ", b"id: 7", b"id", b"retry: ", b"retry: 20",
    b":", b": ping", b" ", b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\0", b"a", b"{}", b"1",
    b"data: {}\n\n", b"data: x\n\n", b"data: y\n\n", b": ping\n", b"\xef\xbb\xbf", b"\xef\xbb", b"\xe2\x80\xa6", b"\xe2\x80",
    b"\xf0\x9f\x98\x80", b"\xff", b"\xc3\xa9",
]  # fmt: skip
