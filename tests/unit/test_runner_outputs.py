"""What a runner leaves on its outputs: a traceback when native code kills it; and an author who breaks them."""

import signal

import pytest

from tests.support.pretend_node import PretendNode, RunnerGone

MODELS = """
import asyncio, ctypes, logging, os, pathlib, sys, threading, time
import headrace


class Raising:
    def write(self, text): raise TypeError("a stranger's stream")
    def flush(self): raise RuntimeError("a stranger's stream")

def close_descriptor_and_open_file():
    os.close(2)
    sys.stderr = open(pathlib.Path(__file__).with_name("the-authors"), "w")
    assert sys.stderr.fileno() == 2

BREAK = {
    "closed": lambda: sys.stderr.close(),
    "none": lambda: setattr(sys, "stderr", None),
    "no stream": lambda: setattr(sys, "stderr", object()),
    "raising": lambda: setattr(sys, "stderr", Raising()),
    "both": lambda: (sys.stdout.close(), sys.stderr.close()),
    "both raising": lambda: (setattr(sys, "stdout", Raising()), setattr(sys, "stderr", Raising())),
    "number taken": close_descriptor_and_open_file,
}


class Outputs(headrace.App, name="t/outputs", max_multiplexing=16):
    @headrace.endpoint("/break")
    def break_outputs(self, input):
        BREAK[input["how"]]()
        return {}

    @headrace.endpoint("/raises")
    def raises(self):
        raise ValueError("in a thread")

    @headrace.endpoint("/raises-on-the-loop")
    async def raises_on_the_loop(self):
        raise ValueError("on the loop")

    @headrace.endpoint("/raises-in-a-callback")
    async def raises_in_a_callback(self):
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(0.01)
        return {}

    @headrace.endpoint("/forgets-a-task")
    async def forgets_a_task(self):
        async def fail():
            raise ValueError("in a task")
        asyncio.create_task(fail())
        await asyncio.sleep(0.01)
        return {}

    @headrace.endpoint("/raises-in-its-own-thread")
    def raises_in_its_own_thread(self):
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
        return {}

    @headrace.endpoint("/logs")
    def logs(self):
        logging.getLogger("author").error("a word")
        return {}

    @headrace.endpoint("/waits")
    def waits_for_ever(self):
        yield {}
        time.sleep(3600)

    @headrace.endpoint("/ticks")
    async def ticks(self):
        while True:
            yield {}
            await asyncio.sleep(0.01)

    @headrace.endpoint("/reads-address-zero")
    def reads_address_zero(self):
        print("a whole line")
        ctypes.string_at(0)

    @headrace.endpoint("/dies")
    async def dies(self, input):
        os.kill(os.getpid(), input["signal"])
        await asyncio.sleep(3600)
"""

REQUESTS = {
    "/raises": "runner_server_error",
    "/raises-on-the-loop": "runner_server_error",
    "/raises-in-a-callback": None,
    "/forgets-a-task": None,
    "/raises-in-its-own-thread": None,
}


@pytest.fixture
def node(tmp_path):
    (tmp_path / "outputs.py").write_text(MODELS)
    with PretendNode(str(tmp_path / "outputs.py")) as node:
        node.setup()
        yield node


def error_type(node: PretendNode, path: str) -> str | None:
    error = node.call(path, b"")[1]
    return error and error["type"]


# --- crashes ------------------------------------------------------------------------------------------------


def lose(node: PretendNode, stream: int) -> int:
    """Wait until the runner has died of a request; return its exit status."""
    with pytest.raises(RunnerGone):
        node.receive(stream)
    return node.exit_status()


@pytest.mark.promise("R2")
def test_a_crash_leaves_the_traceback_of_every_thread_and_dies_of_its_signal(node):
    waits = node.start("/waits", b"")
    node.receive(waits)

    status = lose(node, node.start("/reads-address-zero", b""))

    lines = node.log.splitlines()
    assert -signal.SIGSEGV == status
    assert ["a whole line", "Fatal Python error: Segmentation fault"] == lines[:2]
    assert any("in reads_address_zero" in line for line in lines)
    assert any("in waits_for_ever" in line for line in lines)
    assert node.log.endswith("\n")


@pytest.mark.promise("R2")
@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "Segmentation fault"),
        (signal.SIGABRT, "Aborted"),
        (signal.SIGFPE, "Floating point exception"),
        (signal.SIGBUS, "Bus error"),
        (signal.SIGILL, "Illegal instruction"),
    ],
)
def test_each_fatal_signal_is_told_and_still_what_the_runner_dies_of(node, number, words):
    status = lose(node, node.start("/dies", {"signal": number}))

    assert -number == status
    assert f"Fatal Python error: {words}" in node.log.splitlines()


def test_a_runner_that_is_killed_says_nothing(node):
    status = lose(node, node.start("/dies", {"signal": signal.SIGKILL}))

    assert (-signal.SIGKILL, "") == (status, node.log)


def test_a_crash_is_told_to_the_node_and_not_to_a_file_that_got_its_number(node, tmp_path):
    node.call("/break", {"how": "number taken"})

    lose(node, node.start("/reads-address-zero", b""))

    assert "Fatal Python error: Segmentation fault" in node.log
    assert "" == (tmp_path / "the-authors").read_text()


# --- outputs that the author broke --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed", "none", "no stream", "raising", "both", "both raising"])
def test_no_stream_is_lost_and_the_runner_leaves_in_order_whatever_became_of_its_outputs(node, how):
    ticks = node.start("/ticks", b"")
    node.receive(ticks)
    node.call("/break", {"how": how})

    told = {path: error_type(node, path) for path in REQUESTS}
    error_type(node, "/logs")  # the author's own: it may fail, but it ends
    node.cancel(ticks)

    assert REQUESTS == told
    assert "client_disconnected" == node.finish(ticks)[1]["type"]
    node.socket.close()
    assert 0 == node.exit_status()


def test_what_a_callback_raises_is_logged(node):
    node.call("/raises-in-a-callback", b"")

    assert "ZeroDivisionError" in node.log
