"""`headrace.fal_client` beside fal-client 1.0.3: the same names with the same parameters, or a reason.

Only what concerns run and stream: the queue's, the sockets' and the files' names are not here yet, and a test says so.
"""

import importlib.metadata
import inspect

import fal_client as theirs
import pytest

from headrace import fal_client as ours

#: What takes part in run and stream. A dot is a method.
CALLABLES = (
    "run",
    "run_async",
    "stream",
    "stream_async",
    "SyncClient",
    "SyncClient.run",
    "SyncClient.stream",
    "AsyncClient",
    "AsyncClient.run",
    "AsyncClient.stream",
)

#: Every parameter that differs, what it is in each, and why.
ALLOWED = {
    (name, "headers"): ({}, None, "a mutable default is shared by every call; None means the same")
    for name in CALLABLES
    if name not in {"SyncClient", "AsyncClient"}
}

#: fal-client's names that are not ours yet, by the part of fal that they need.
NOT_YET = {
    "the queue": {
        "submit", "submit_async", "subscribe", "subscribe_async", "status", "status_async", "result",
        "result_async", "cancel", "cancel_async", "SyncRequestHandle", "AsyncRequestHandle", "Status",
        "Queued", "InProgress", "Completed",
    },
    "sockets": {
        "realtime", "realtime_async", "ws_connect", "ws_connect_async", "RealtimeConnection",
        "AsyncRealtimeConnection",
    },
    "files": {
        "upload", "upload_async", "upload_file", "upload_file_async", "upload_image", "upload_image_async",
        "encode", "encode_file", "encode_image", "StorageACL", "StorageACLDecision", "StorageACLRule",
        "StorageSettings", "ObjectExpiration",
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
