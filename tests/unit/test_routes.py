"""App names, endpoint ids, view paths, and the table that puts them together."""

import pytest

from headrace.core.errors import FileFault
from headrace.core.routes import (
    EndpointId,
    RouteTable,
    UnknownPath,
    View,
    check_app_name,
    check_endpoint_path,
    parse_endpoint_id,
    view_paths,
)
from headrace.core.spec import AppSpec, EndpointSpec


def endpoint(path: str = "/", *, streams: bool = True, stream: str | None = None, line: int = 2) -> EndpointSpec:
    run_path, stream_path = view_paths(path, streams=streams, stream=stream)
    return EndpointSpec(path, run_path, stream_path, "", line, {}, {}, {})


def app(name: str, *endpoints: EndpointSpec, line: int = 1) -> AppSpec:
    return AppSpec(name, "App", "m.py", line, "", endpoints)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fal-ai/flux", EndpointId("fal-ai/flux", "")),
        ("/fal-ai/flux/schnell/", EndpointId("fal-ai/flux", "/schnell")),
        ("fal-ai/flux/a/b", EndpointId("fal-ai/flux", "/a/b")),
        ("workflows/me/flow", EndpointId("workflows/me/flow", "")),
        ("comfy/me/flow/x", EndpointId("comfy/me/flow", "/x")),
        ("110602490-lora", EndpointId("110602490/lora", "")),
    ],
)
def test_an_endpoint_id_is_read_as_fals_clients_read_it(text, expected):
    assert expected == parse_endpoint_id(text)


@pytest.mark.parametrize("text", ["", "/", "flux", "workflows/me", "a-110602490"])
def test_an_id_without_owner_or_alias_is_refused(text):
    with pytest.raises(ValueError, match="owner/alias"):
        parse_endpoint_id(text)


@pytest.mark.parametrize("name", ["fal-ai/flux", "me/chat.v2", "workflows/me/flow", "1/2", "A_/x_"])
def test_a_good_app_name_stands(name):
    assert name == check_app_name(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("flux", "owner/alias"),
        ("me/chat/fast", "paths belong to @endpoint"),
        ("/me/chat", "owner/alias"),
        ("me/ch at", "letters"),
        ("me/" + "x" * 65, "64"),
        ("queue/chat", "kept"),
        ("v1/chat", "kept"),
        ("me/requests", "kept"),
        ("../etc", "letters"),
    ],
)
def test_a_bad_app_name_is_refused_in_one_clear_line(name, why):
    with pytest.raises(ValueError, match=why):
        check_app_name(name)


@pytest.mark.parametrize(("path", "expected"), [("/", ""), ("/a", "/a"), ("/a/", "/a"), ("/a/b~c", "/a/b~c")])
def test_a_good_endpoint_path_loses_its_last_slash(path, expected):
    assert expected == check_endpoint_path(path)


@pytest.mark.parametrize(
    "path", ["", "a", "/a//b", "/..", "/a b", "/requests", "/x/requests/y", "/openapi.json", "/llms.txt", "/é"]
)
def test_a_bad_endpoint_path_is_refused(path):
    with pytest.raises(ValueError, match="path"):
        check_endpoint_path(path)


@pytest.mark.parametrize(
    ("path", "streams", "stream", "expected"),
    [
        ("/", True, None, ("", "/stream")),
        ("/a", True, None, ("/a", "/a/stream")),
        ("/a", False, None, ("/a", None)),
        ("/a/stream", True, None, (None, "/a/stream")),
        ("/stream", True, None, (None, "/stream")),
        ("/a", True, "/live", ("/a", "/live")),
        ("/a", True, "/a", (None, "/a")),
        ("/a/stream", False, None, ("/a/stream", None)),
    ],
)
def test_view_paths(path, streams, stream, expected):
    assert expected == view_paths(path, streams=streams, stream=stream)


def test_a_stream_path_without_items_is_refused():
    with pytest.raises(ValueError, match="generators"):
        view_paths("/a", streams=False, stream="/live")


def test_the_table_finds_each_view():
    flux = app("me/flux", endpoint("/"), endpoint("/fast", streams=False, line=9))
    table = RouteTable([flux], {"you/copy": "me/flux"})

    assert View.RUN is table.find("/me/flux").view
    assert View.RUN is table.find("/me/flux/").view
    assert View.STREAM is table.find("/me/flux/stream").view
    assert "/fast" == table.find("/me/flux/fast").endpoint.path
    assert View.STREAM is table.find("/you/copy/stream").view


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/me/flux/fast/stream", "run at /me/flux/fast"),
        ("/me/flux/nope", "/me/flux/stream"),
        ("/me/other", "no app 'me/other'"),
        ("/flux", "owner/alias"),
    ],
)
def test_an_unknown_path_is_told_what_there_is(path, told):
    table = RouteTable([app("me/flux", endpoint("/"), endpoint("/fast", streams=False, line=9))])

    with pytest.raises(UnknownPath, match=told):
        table.find(path)


def test_two_apps_of_one_name_are_a_fault_of_the_second():
    with pytest.raises(FileFault, match=r"^m\.py:7: .*m\.py:1"):
        RouteTable([app("me/flux", endpoint()), app("me/flux", endpoint(), line=7)])


@pytest.mark.parametrize(
    "endpoints",
    [
        (endpoint("/a"), endpoint("/a", line=8)),
        (endpoint("/"), endpoint("/stream", line=8)),
        (endpoint("/a"), endpoint("/b", stream="/a", line=8)),
        (endpoint("/a", streams=False), endpoint("/a/", streams=False, line=8)),
    ],
)
def test_two_views_of_one_path_are_a_fault_of_the_second_endpoint(endpoints):
    with pytest.raises(FileFault, match=r"^m\.py:8: .*another path"):
        RouteTable([app("me/flux", *endpoints)])


@pytest.mark.parametrize(
    ("aliases", "why"),
    [({"you/copy": "me/none"}, "no app"), ({"me/flux": "me/flux"}, "taken"), ({"queue/x": "me/flux"}, "kept")],
)
def test_a_bad_alias_is_refused(aliases, why):
    with pytest.raises(ValueError, match=why):
        RouteTable([app("me/flux", endpoint())], aliases)
