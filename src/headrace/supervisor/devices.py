"""The GPUs of this node, and which runner has them: whole devices, none to two runners.

A device is a text that `CUDA_VISIBLE_DEVICES` and `HIP_VISIBLE_DEVICES` take: an index, a UUID, a MIG slice. CUDA
shows a process one MIG slice alone, however many are named. A lease is given back when the runner's process group
is gone; this file does not know when that is. Nor does it talk to a driver: `find_devices` counts what the system
lists. The variables persuade; they do not confine: a model that sets them anew sees every device.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: How nvidia-smi numbers. CUDA by itself puts the fastest first, so that on a mixed machine index 0 is another.
PCI_ORDER: Final = "PCI_BUS_ID"

#: CUDA's order when nobody names one.
_CUDA_ORDER: Final = "FASTEST_FIRST"

#: HIP reads its own variable, and CUDA's without it. Both get the same.
_VISIBLE: Final = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")

#: Nobody's index, which ends a list before it begins and hides all from both. HIP takes an empty one for unset.
_NONE: Final = "-1"

_DEVICE: Final = re.compile(r"0|[1-9][0-9]*|(GPU|MIG)-[0-9A-Za-z/-]+")
_NVIDIA_NODE: Final = re.compile(r"nvidia[0-9]+")


# --- who gets which -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wish:
    """A lease that somebody waits for."""

    app: str
    count: int


def next_lease(free: int, wishes: Sequence[Wish], owed: Mapping[str, int]) -> int | None:
    """Return which of `wishes` is granted next, by its place; None when all must wait.

    `owed` says how many devices each app has a right to and does not hold. Those are nobody else's, and wishes for
    them go first. The rest goes by order; who does not fit ends the list, though one behind might fit: else small
    leases would starve a large one.
    """
    for place, wish in enumerate(wishes):
        if wish.count <= min(free, owed.get(wish.app, 0)):
            return place
    spare = free - sum(owed.values())
    for place, wish in enumerate(wishes):
        its_own = owed.get(wish.app, 0)
        if wish.count > its_own:
            return place if wish.count <= spare + its_own else None
    return None


def environment_for(ids: Sequence[str], order: str = PCI_ORDER) -> dict[str, str]:
    """Return the variables that show a process these devices alone; none hides all.

    `ROCR_VISIBLE_DEVICES` is not among them. It acts below HIP, whose indices count what it left over: with both
    set to 1, nothing is left. The node's own stays in force, and our indices count from it.
    """
    if not ids:
        return dict.fromkeys(_VISIBLE, _NONE)
    return dict.fromkeys(_VISIBLE, ",".join(ids)) | {"CUDA_DEVICE_ORDER": order}


class Lease:
    """Devices that are one runner's until it gives them back."""

    def __init__(self, ids: tuple[str, ...], app: str, order: str, take_back: Callable[[Lease], None]) -> None:
        self.ids = ids
        self.app = app
        self._order = order
        self._take_back = take_back
        self._is_held = True

    def environment(self) -> dict[str, str]:
        """Return the variables that show the runner these devices alone."""
        return environment_for(self.ids, self._order)

    def give_back(self) -> None:
        """Let others have the devices. Again is nothing."""
        if self._is_held:
            self._is_held = False
            self._take_back(self)


class Devices:
    """The devices of a node and the leases that wait for some. For one event loop.

    First come, first served, except that an app has a right to the share that `keep` tells. So one that grows
    never takes the device of another whose runner died and must come back.
    """

    def __init__(self, ids: Sequence[str], order: str = PCI_ORDER) -> None:
        """Take the devices, and the CUDA order their indices are of. Raises `ValueError` for one named twice."""
        twice = [device for device, times in Counter(ids).items() if times > 1]
        if twice:
            raise ValueError(f"these devices are named twice: {', '.join(twice)}")
        self.ids = tuple(ids)
        self._order = order
        self._free = set(ids)
        self._waiting: dict[asyncio.Future[Lease], Wish] = {}  # in their order
        self._shares: Mapping[str, int] = {}
        self._held: Counter[str] = Counter()  # by app

    @property
    def total(self) -> int:
        """How many devices there are."""
        return len(self.ids)

    @property
    def free(self) -> int:
        """How many devices are nobody's."""
        return len(self._free)

    def free_for(self, apps: Collection[str]) -> int:
        """Return how many devices are nobody's and not kept for other apps than these."""
        return self.free - sum(count for app, count in self._owed().items() if app not in apps)

    def keep(self, shares: Mapping[str, int]) -> None:
        """Let each app have a right to its share. What was said before is forgotten."""
        self._shares = dict(shares)
        self._assign()

    def check(self, count: int) -> None:
        """Raise `ValueError` if this node could never lease so many."""
        if count < 1:
            raise ValueError(f"a lease is of at least one GPU, not {count}")
        if count > self.total:
            has = f"{self.total} ({', '.join(self.ids)})" if self.ids else "none"
            raise ValueError(f"{count} {'GPU is' if count == 1 else 'GPUs are'} wanted; this node has {has}")

    async def lease(self, count: int, app: str = "") -> Lease:
        """Wait for `count` devices for an app, without a deadline: the caller has one.

        Raises `ValueError` as `check` does.
        A caller that is cancelled meanwhile holds nothing and stands in nobody's way.
        """
        self.check(count)
        place: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting[place] = Wish(app, count)
        self._assign()
        try:
            return await place
        except asyncio.CancelledError:
            if place.cancelled():
                self._waiting.pop(place, None)
                self._assign()  # those behind may fit now
            else:  # it was given in the same turn of the loop
                place.result().give_back()
            raise

    def _take_back(self, lease: Lease) -> None:
        self._free.update(lease.ids)
        self._held[lease.app] -= len(lease.ids)
        self._assign()

    def _owed(self) -> dict[str, int]:
        return {app: max(0, share - self._held[app]) for app, share in self._shares.items()}

    def _assign(self) -> None:
        # A cancelled place stays until its task runs again; by then a device must not have gone to it.
        self._waiting = {place: wish for place, wish in self._waiting.items() if not place.cancelled()}
        while (number := next_lease(self.free, [*self._waiting.values()], self._owed())) is not None:
            place = [*self._waiting][number]
            wish = self._waiting.pop(place)
            ids = tuple(device for device in self.ids if device in self._free)[: wish.count]
            self._free.difference_update(ids)
            self._held[wish.app] += wish.count
            place.set_result(Lease(ids, wish.app, self._order, self._take_back))


# --- which there are ----------------------------------------------------------------------------------------


def find_devices(
    environ: Mapping[str, str], *, dev: Path = Path("/dev"), proc: Path = Path("/proc"), sys: Path = Path("/sys")
) -> tuple[str, ...]:
    """Return the devices that a process started with this environment would see.

    - those that its own variables name, since a node may be restricted itself; where CUDA's and HIP's name
      different ones, those in both
    - else as many as NVIDIA's driver has here, as indices from 0
    - else as many as AMD's has and `ROCR_VISIBLE_DEVICES` leaves over

    A GPU that the system lists nowhere here (WSL, Jetson) is found by its name in the variables alone.
    """
    named = [named_devices(environ[name]) for name in _VISIBLE if name in environ]
    if named:
        return tuple(device for device in named[0] if all(device in others for others in named))
    count = _nvidia_count(dev, proc) or _amd_count(sys, environ.get("ROCR_VISIBLE_DEVICES"))
    return tuple(map(str, range(count)))


def device_order(environ: Mapping[str, str]) -> str:
    """Return the CUDA order that the indices `find_devices` found are of.

    Indices that somebody wrote mean what they meant there, which is CUDA's own order unless one was named; under
    another, the runner might see a device that was none of the node's. Those we counted are of PCI's.
    """
    ours = _CUDA_ORDER if "CUDA_VISIBLE_DEVICES" in environ else PCI_ORDER
    return environ.get("CUDA_DEVICE_ORDER") or ours


def named_devices(text: str) -> tuple[str, ...]:
    """Return the devices that a value of `CUDA_VISIBLE_DEVICES` names, as they are written and each once.

    As the CUDA programming guide has it, the first that is none (-1, NoDevFiles) hides those behind it.
    """
    devices: dict[str, None] = {}
    for device in map(str.strip, text.split(",")):
        if not _DEVICE.fullmatch(device):
            break
        devices[device] = None
    return tuple(devices)


def _nvidia_count(dev: Path, proc: Path) -> int:
    """Count the devices that the driver has and a process here may open.

    In a container /proc may list the whole host's, or nothing; on a host /dev may lack one that nobody used yet.
    What is there at all is right, and the fewer of two.
    """
    nodes = sum(_NVIDIA_NODE.fullmatch(path.name) is not None for path in dev.glob("nvidia*"))
    cards = sum(1 for _ in proc.glob("driver/nvidia/gpus/*"))
    return min((count for count in (nodes, cards) if count), default=0)


def _amd_count(sys: Path, left_over: str | None) -> int:
    nodes = sum(_is_gpu(path) for path in sys.glob("class/kfd/kfd/topology/nodes/*/gpu_id"))
    return nodes if left_over is None else min(nodes, len(named_devices(left_over)))


def _is_gpu(gpu_id: Path) -> bool:
    try:
        return gpu_id.read_text("ascii").strip() != "0"  # a CPU's is 0
    except OSError:
        return False  # the kernel lists it, but this container may not use it
