"""The GPUs of a node and who has them, with pretended devices."""

import asyncio
import random
from pathlib import Path

import pytest

from headrace.supervisor.devices import (
    Devices,
    Wish,
    device_order,
    environment_for,
    find_devices,
    named_devices,
    next_lease,
)


def machine(root: Path, *, nodes: int = 0, cards: int = 0, amd: tuple[str, ...] = ()) -> dict[str, Path]:
    """A machine's /dev, /proc and /sys: NVIDIA's device files, its driver's list, AMD's gpu_ids."""
    roots = {name: root / name for name in ("dev", "proc", "sys")}
    for folder in roots.values():
        folder.mkdir()
    for name in ("null", "nvidiactl", "nvidia-uvm", "nvidia-caps", "nvidia-modeset"):
        (roots["dev"] / name).touch()
    for number in range(nodes):
        (roots["dev"] / f"nvidia{number}").touch()
    for number in range(cards):
        (roots["proc"] / "driver" / "nvidia" / "gpus" / f"0000:{number:02x}:00.0").mkdir(parents=True)
    for number, gpu_id in enumerate(amd):
        folder = roots["sys"] / "class" / "kfd" / "kfd" / "topology" / "nodes" / str(number)
        folder.mkdir(parents=True)
        (folder / "gpu_id").write_text(f"{gpu_id}\n")
    return roots


async def turn() -> None:
    """Let every task that can go on do so."""
    for _ in range(5):
        await asyncio.sleep(0)


# --- which there are ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ("0", ("0",)),
        ("0,1", ("0", "1")),
        ("3,1", ("3", "1")),
        (" 0 , 2 ", ("0", "2")),
        ("10,11", ("10", "11")),
        ("", ()),
        (" ", ()),
        ("-1", ()),
        ("NoDevFiles", ()),
        ("none", ()),
        ("void", ()),
        ("all", ()),
        ("0,-1,1", ("0",)),
        ("0,,1", ("0",)),
        ("0,1,", ("0", "1")),
        ("0,x,1", ("0",)),
        ("0 1", ()),
        ("01", ()),
        ("+1", ()),
        ("1.0", ()),
        ("²", ()),
        ("0,0", ("0",)),
        ("1,0,1", ("1", "0")),
        ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6", ("GPU-8932f937-d72c-4106-c12f-20bd9faed9f6",)),
        ("GPU-8932f937,GPU-0aa1", ("GPU-8932f937", "GPU-0aa1")),
        ("MIG-0d0e7b3c-2f52-5b52-9c50-0dd5bb9bcf1f", ("MIG-0d0e7b3c-2f52-5b52-9c50-0dd5bb9bcf1f",)),
        ("MIG-GPU-8932f937/1/0,MIG-GPU-8932f937/2/0", ("MIG-GPU-8932f937/1/0", "MIG-GPU-8932f937/2/0")),
        ("GPU-", ()),
        ("gpu-8932f937", ()),
    ],
)
def test_a_list_of_devices_is_read_as_cuda_reads_it(text, devices):
    assert devices == named_devices(text)


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({}, ("0", "1", "2", "3")),
        ({"CUDA_VISIBLE_DEVICES": "1,3"}, ("1", "3")),
        ({"CUDA_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, ()),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, ()),
        ({"HIP_VISIBLE_DEVICES": "2"}, ("2",)),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "0,1"}, ("0", "1")),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "1,2"}, ("1",)),
        ({"CUDA_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": ""}, ()),
        ({"CUDA_VISIBLE_DEVICES": "GPU-8932f937"}, ("GPU-8932f937",)),
        ({"ROCR_VISIBLE_DEVICES": "0"}, ("0", "1", "2", "3")),  # not NVIDIA's business
    ],
)
def test_a_node_leases_what_its_own_environment_shows_it(tmp_path, environ, devices):
    assert devices == find_devices(environ, **machine(tmp_path, nodes=4, cards=4))


@pytest.mark.parametrize(
    ("nodes", "cards", "devices"),
    [
        (0, 0, ()),
        (2, 2, ("0", "1")),
        (1, 8, ("0",)),  # a container that may use one of the host's eight
        (2, 0, ("0", "1")),  # a container without the driver's folder
        (0, 2, ("0", "1")),  # a host on which nobody used one yet
        (8, 2, ("0", "1")),  # device files made in advance
    ],
)
def test_nvidia_devices_are_counted_without_the_driver(tmp_path, nodes, cards, devices):
    assert devices == find_devices({}, **machine(tmp_path, nodes=nodes, cards=cards))


@pytest.mark.parametrize(
    ("environ", "devices"),
    [
        ({}, ("0", "1", "2")),
        ({"ROCR_VISIBLE_DEVICES": "1,2"}, ("0", "1")),  # HIP counts what is left over
        ({"ROCR_VISIBLE_DEVICES": "GPU-DEADBEEFDEADBEEF"}, ("0",)),
        ({"ROCR_VISIBLE_DEVICES": ""}, ()),
        ({"ROCR_VISIBLE_DEVICES": "0,1,2,3,4"}, ("0", "1", "2")),
        ({"ROCR_VISIBLE_DEVICES": "1,2", "HIP_VISIBLE_DEVICES": "1"}, ("1",)),
    ],
)
def test_amd_devices_are_counted_from_the_topology_less_its_cpus(tmp_path, environ, devices):
    amd = ("0", "0", "31793", "5095", "41873")

    assert devices == find_devices(environ, **machine(tmp_path, amd=amd))


def test_an_amd_device_that_cannot_be_read_is_not_ours(tmp_path):
    roots = machine(tmp_path, amd=("0", "31793"))
    (roots["sys"] / "class/kfd/kfd/topology/nodes/2/gpu_id").mkdir(parents=True)  # a read fails

    assert ("0",) == find_devices({}, **roots)


def test_a_machine_without_any_of_it_has_no_devices(tmp_path):
    nowhere = tmp_path / "nowhere"

    assert () == find_devices({}, dev=nowhere, proc=nowhere, sys=nowhere)


@pytest.mark.parametrize(
    ("environ", "order"),
    [
        ({}, "PCI_BUS_ID"),
        ({"CUDA_VISIBLE_DEVICES": "0"}, "FASTEST_FIRST"),
        ({"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}, "PCI_BUS_ID"),
        ({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, "FASTEST_FIRST"),
        ({"CUDA_DEVICE_ORDER": ""}, "PCI_BUS_ID"),
    ],
)
def test_an_index_keeps_the_meaning_it_had_where_it_was_written(environ, order):
    assert order == device_order(environ)


# --- what a runner is told ----------------------------------------------------------------------------------


def test_a_runner_is_shown_its_devices_alone():
    async def go() -> dict[str, str]:
        devices = Devices(["0", "1", "2", "3"])
        await devices.lease(2)
        return (await devices.lease(2)).environment()

    assert asyncio.run(go()) == {
        "CUDA_VISIBLE_DEVICES": "2,3",
        "HIP_VISIBLE_DEVICES": "2,3",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def test_a_lease_tells_the_order_that_its_indices_are_of():
    async def go() -> dict[str, str]:
        return (await Devices(["1"], order="FASTEST_FIRST").lease(1)).environment()

    assert asyncio.run(go())["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


def test_no_devices_hides_all_in_a_spelling_that_hip_also_heeds():
    assert environment_for(()) == {"CUDA_VISIBLE_DEVICES": "-1", "HIP_VISIBLE_DEVICES": "-1"}


def test_a_runner_that_looks_for_devices_finds_those_of_its_lease(tmp_path):
    roots = machine(tmp_path, nodes=4, cards=4)

    assert ("1", "3") == find_devices(environment_for(("1", "3")), **roots)
    assert () == find_devices(environment_for(()), **roots)


# --- who has them -------------------------------------------------------------------------------------------


A, AA, AAA, B, BB, C = Wish("a", 1), Wish("a", 2), Wish("a", 3), Wish("b", 1), Wish("b", 2), Wish("c", 1)


@pytest.mark.parametrize(
    ("free", "wishes", "owed", "granted"),
    [
        # Nobody has a right to any: who waits first is served first.
        (0, [A], {}, None),
        (2, [], {}, None),
        (2, [A, B], {}, 0),
        (2, [AAA, B], {}, None),  # nobody passes the one that waits for three
        # An app that is owed some goes first, and nobody takes what is owed to it.
        (1, [A, B], {"b": 1}, 1),
        (1, [A], {"b": 1}, None),
        (2, [A], {"b": 1}, 0),
        (2, [AA, A], {"b": 1}, None),
        (1, [A, BB], {"b": 2}, None),  # it waits for the second one
        (2, [A, BB], {"b": 2}, 1),
        (2, [AAA, C, BB], {"a": 1, "b": 2}, 2),
        # A wish for more than is owed takes both, what is owed and what is left.
        (3, [AA], {"a": 1, "b": 1}, 0),
        (2, [AA], {"a": 1, "b": 1}, None),
        (0, [A, B], {"a": 1, "b": 1}, None),
    ],
)
def test_an_app_gets_what_it_is_owed_and_the_rest_goes_by_order(free, wishes, owed, granted):
    assert granted == next_lease(free, wishes, owed)


def test_what_is_kept_for_an_app_is_nobody_elses_while_it_comes_back():
    async def go() -> None:
        devices = Devices(["0", "1", "2"])
        devices.keep({"a": 1, "b": 1})
        own = await devices.lease(1, "b")
        one, two, three = (asyncio.create_task(devices.lease(1, "a")) for _ in range(3))
        await turn()
        assert (True, True, False) == (one.done(), two.done(), three.done())  # its own, and the one that is left
        assert (0, 0) == (devices.free_for(["a"]), devices.free_for(["b"]))

        own.give_back()
        await turn()
        assert (False, 0, 1) == (three.done(), devices.free_for(["a"]), devices.free_for(["b"]))

        own = await devices.lease(1, "b")
        one.result().give_back()
        await turn()
        assert (True, 0) == (three.done(), devices.free)

    asyncio.run(go())


def test_a_lease_takes_devices_and_gives_them_back_once():
    async def go() -> None:
        devices = Devices(["0", "1"])
        first = await devices.lease(1)
        second = await devices.lease(1)
        assert (("0",), ("1",), 0, 2) == (first.ids, second.ids, devices.free, devices.total)

        first.give_back()
        third = await devices.lease(1)
        first.give_back()  # nothing: device 0 is the third's
        assert (("0",), 0) == (third.ids, devices.free)

        second.give_back()
        third.give_back()
        assert devices.free == 2

    asyncio.run(go())


def test_a_large_lease_is_not_starved_by_small_ones_behind_it():
    async def go() -> None:
        devices = Devices(["0", "1"])
        held = await devices.lease(1)
        large = asyncio.create_task(devices.lease(2))
        small = asyncio.create_task(devices.lease(1))
        await turn()
        assert (False, False, 1) == (large.done(), small.done(), devices.free)

        held.give_back()
        await turn()
        assert (("0", "1"), False) == (large.result().ids, small.done())

        large.result().give_back()
        assert (await small).ids == ("0",)

    asyncio.run(go())


def test_one_that_stops_waiting_stands_in_nobodys_way():
    async def go() -> None:
        devices = Devices(["0", "1"])
        await devices.lease(1)
        large = asyncio.create_task(devices.lease(2))
        small = asyncio.create_task(devices.lease(1))
        await turn()

        large.cancel()
        await turn()
        assert large.cancelled()
        assert small.result().ids == ("1",)

    asyncio.run(go())


def test_a_device_given_to_one_that_is_cancelled_in_the_same_turn_comes_back():
    async def go() -> None:
        devices = Devices(["0"])
        held = await devices.lease(1)
        waiting = asyncio.create_task(devices.lease(1))
        await turn()

        held.give_back()  # it is the waiting one's now ...
        waiting.cancel()  # ... which never learns of it
        await turn()
        assert (True, 1) == (waiting.cancelled(), devices.free)

    asyncio.run(go())


def test_a_device_that_comes_back_behind_a_cancellation_goes_to_the_next():
    async def go() -> None:
        devices = Devices(["0"])
        held = await devices.lease(1)
        cancelled = asyncio.create_task(devices.lease(1))
        waiting = asyncio.create_task(devices.lease(1))
        await turn()

        cancelled.cancel()  # its task has yet to run ...
        held.give_back()  # ... when the device comes back
        assert (await waiting).ids == ("0",)
        assert cancelled.cancelled()

    asyncio.run(go())


def test_a_deadline_ends_the_wait_for_a_device():
    async def go() -> None:
        devices = Devices(["0"])
        held = await devices.lease(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await devices.lease(1)

        held.give_back()
        assert devices.free == 1

    asyncio.run(go())


@pytest.mark.parametrize(
    ("ids", "count", "message"),
    [
        ((), 1, "1 GPU is wanted; this node has none"),
        (("0", "1"), 3, "3 GPUs are wanted; this node has 2 (0, 1)"),
        (("0",), 0, "a lease is of at least one GPU, not 0"),
        (("0",), -1, "a lease is of at least one GPU, not -1"),
    ],
)
def test_a_lease_that_could_never_be_is_refused_at_once(ids, count, message):
    devices = Devices(ids)

    with pytest.raises(ValueError) as refused:
        devices.check(count)
    with pytest.raises(ValueError):
        asyncio.run(devices.lease(count))
    assert message == str(refused.value)


def test_as_many_as_there_are_may_be_leased():
    Devices(["0", "1"]).check(2)


def test_a_device_named_twice_is_refused():
    with pytest.raises(ValueError, match="these devices are named twice: 0"):
        Devices(["0", "1", "0"])


def test_over_1000_random_sequences_no_device_has_two_leases_and_none_is_lost():
    async def storm(dice: random.Random) -> None:
        devices = Devices([str(number) for number in range(dice.randint(1, 8))])
        tasks: list[asyncio.Task] = []
        given_back = set()

        def held() -> list:
            done = [task for task in tasks if task.done() and not task.cancelled() and task not in given_back]
            return [task for task in done if not task.exception()]

        def verify(wants: dict) -> None:
            ids = [device for task in held() for device in task.result().ids]
            assert len(ids) == len(set(ids))
            assert sorted(ids) == sorted(set(devices.ids) - devices._free)
            waiting = [task for task in tasks if not task.done()]
            if waiting:
                assert wants[waiting[0]] > devices.free  # nobody waits for what is there
            granted = [tasks.index(task) for task in tasks if task in given_back or task in held()]
            assert not waiting or all(at < tasks.index(waiting[0]) for at in granted)  # nor was passed by

        wants: dict[asyncio.Task, int] = {}
        for _ in range(dice.randint(5, 40)):
            for _ in range(dice.randint(1, 3)):  # several things in one turn of the loop
                match dice.choice(("lease", "lease", "give back", "give back", "cancel")):
                    case "lease":
                        count = dice.randint(1, devices.total)
                        task = asyncio.create_task(devices.lease(count))
                        tasks.append(task)
                        wants[task] = count
                    case "give back" if held():
                        task = dice.choice(held())
                        task.result().give_back()
                        given_back.add(task)
                    case "cancel" if tasks:
                        dice.choice(tasks).cancel()
            if dice.random() < 0.7:
                await turn()
                verify(wants)

        for _ in range(len(tasks) + 1):
            await turn()
            for task in held():
                task.result().give_back()
                given_back.add(task)
        assert all(task.done() for task in tasks)
        assert devices.free == devices.total

    async def storms() -> None:
        for seed in range(1_000):
            await storm(random.Random(seed))

    asyncio.run(storms())
