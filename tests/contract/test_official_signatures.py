"""`headrace.fal_client` beside fal-client 1.0.3: the same names with the same parameters, or a reason.

Only what concerns run, stream, the queue and files: the sockets' names are not here yet, and a test says so.
"""

import importlib.metadata
import inspect

import fal_client as theirs
import pytest

from headrace import fal_client as ours

CALLS = (
    "run", "stream", "submit", "subscribe", "status", "result", "cancel", "upload", "upload_file", "upload_image",
)  # fmt: skip
CLIENTS = ("SyncClient", "AsyncClient")
HANDLES = ("SyncRequestHandle", "AsyncRequestHandle")
#: What takes part in run, stream, the queue and files. A dot is a method.
CALLABLES = (
    *CALLS,
    *(f"{name}_async" for name in CALLS),
    *CLIENTS,
    *(f"{client}.{name}" for client in CLIENTS for name in (*CALLS, "get_handle")),
    *HANDLES,
    *(
        f"{handle}.{name}"
        for handle in HANDLES
        for name in ("from_request_id", "status", "iter_events", "get", "cancel")
    ),
    "Queued",
    "InProgress",
    "Completed",
    "encode",
    "encode_file",
    "encode_image",
    "StorageACL",
    "StorageACLRule",
    "StorageSettings",
)
#: Those of them that take headers.
WITH_HEADERS = {
    name
    for name in CALLABLES
    if name.removesuffix("_async").rpartition(".")[2] in {"run", "stream", "submit", "subscribe"}
}

#: Every parameter that differs, what it is in each, and why.
ALLOWED = {
    (name, "headers"): ({}, None, "a mutable default is shared by every call; None means the same")
    for name in WITH_HEADERS
}

#: fal-client's names that are not ours yet, by the part of fal that they need.
NOT_YET = {
    "sockets": {
        "realtime", "realtime_async", "ws_connect", "ws_connect_async", "RealtimeConnection",
        "AsyncRealtimeConnection",
    },
    "apps that call apps on fal": {"set_get_current_app"},
}  # fmt: skip


def found(module, name: str):
    for part in name.split("."):
        module = getattr(module, part)
    return module


def parameters(callable_) -> dict[str, tuple[str, object]]:
    signature = inspect.signature(callable_)
    return {name: (one.kind.name, one.default) for name, one in signature.parameters.items()}


def test_the_version_is_the_one_that_is_installed():
    assert ours.__version__ == theirs.__version__ == importlib.metadata.version("fal-client") == "1.0.3"
    assert ours.version_tuple == theirs.version_tuple


@pytest.mark.parametrize("name", CALLABLES)
def test_parameters_have_fals_names_order_kinds_and_defaults(name):
    expected = parameters(found(theirs, name))
    for (callable_, parameter), (before, after, _) in ALLOWED.items():
        if callable_ == name:
            kind, default = expected[parameter]
            assert default == before
            expected[parameter] = (kind, after)

    assert list(parameters(found(ours, name)).items()) == list(expected.items())


@pytest.mark.parametrize("name", CALLABLES)
def test_a_generator_is_iterated_and_a_coroutine_awaited_as_fals_is(name):
    """fal's stream is a generator function, ours returns the generator: the caller writes the same."""
    mine, fals = found(ours, name), found(theirs, name)

    assert inspect.iscoroutinefunction(mine) == inspect.iscoroutinefunction(fals)


@pytest.mark.parametrize("name", ["FalClientError", "FalClientHTTPError", "FalClientTimeoutError"])
def test_errors_stand_in_fals_tree(name):
    bases = {base.__name__ for base in found(theirs, name).__mro__} & {"FalClientError", "TimeoutError"}
    named = {"FalClientError": ours.FalClientError, "TimeoutError": TimeoutError}

    assert [base for base in bases if not issubclass(found(ours, name), named[base])] == []


@pytest.mark.parametrize("name", ["Queued", "InProgress", "Completed"])
def test_what_a_status_can_be_is_a_status(name):
    assert issubclass(found(theirs, name), theirs.Status)
    assert issubclass(found(ours, name), ours.Status)


def test_a_status_and_a_handle_look_like_fals():
    def looks(module):
        status = module.Completed([{"message": "x"}], {"inference_time": 0.5}, error="422")
        handle = module.SyncRequestHandle("r1", "http://a/r", "http://a/s", "http://a/c", None)
        return repr(module.Queued(position=1)), repr(module.InProgress(logs=None)), repr(status), repr(handle)

    assert looks(ours) == looks(theirs)
    assert ours.Queued(1) == ours.Queued(position=1) != ours.Queued(2)


@pytest.mark.parametrize("name", ["sync_client", "async_client"])
def test_the_default_clients_are_there(name):
    assert type(found(ours, name)).__name__ == type(found(theirs, name)).__name__


def public_names(module) -> set[str]:
    """What a caller can take from the module: its `__all__` leaves out names that fal documents."""
    return {name for name, value in vars(module).items() if name[0] != "_" and not inspect.ismodule(value)}


def test_every_public_name_is_ours_or_is_listed_as_not_yet():
    assert public_names(theirs) - set(ours.__all__) == set().union(*NOT_YET.values())


def test_we_add_no_name_that_fal_does_not_have():
    assert set(ours.__all__) - public_names(theirs) == {"__version__"}
