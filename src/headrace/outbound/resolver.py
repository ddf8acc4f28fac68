"""What addresses a name has, judged; and the means to have aiohttp connect to those and nowhere else.

A name is asked about once. Were it asked about again to connect, its owner could answer with a public address
first and with ours after it (DNS rebinding). And all its addresses must pass: with one good and one bad, chance
would choose.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final, TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult

from headrace.core.netguard import Address, Policy, Target, UrlRefused

#: Says what addresses a name has, for a TCP connection to a port. Raises `OSError` when it has none.
Lookup: TypeAlias = Callable[[str, int], Awaitable[Sequence[Address]]]

#: What aiohttp hands to a socket factory: family, type, protocol, name, and the address to connect to.
_AddressInfo: TypeAlias = tuple[int, int, int, str, tuple[object, ...]]

#: Questions that may wait for the system's resolver at once, each in a thread. One that hangs holds its thread
#: until the resolver gives up (some 30 s), so this bounds what slow name servers can take.
LOOKUPS_MAX: Final = 32

#: Addresses of one name that are tried. They are tried in turn, and the time is bounded anyway.
ADDRESSES_MAX: Final = 8


class SystemLookup:
    """The system's resolver (`getaddrinfo`), each question in a thread of its own.

    The loop's shared threads would do, but a stranger's slow name server would take them from everybody, and hold
    up the end of the process. These threads are daemons and counted.
    """

    def __init__(self, lookups_max: int = LOOKUPS_MAX) -> None:
        self._room = threading.BoundedSemaphore(lookups_max)

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        """Return the addresses of `host`. Raises `OSError`. Cancelled, it leaves its thread to end by itself."""
        if not self._room.acquire(blocking=False):
            raise OSError("too many names are being looked up")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[Address]] = loop.create_future()

        def ask() -> None:
            found: list[Address] = []
            fault: Exception | None = None
            try:
                rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
                found = [ipaddress.ip_address(row[4][0]) for row in rows]
            except Exception as error:  # whatever it is, somebody waits for an answer
                fault = error
            finally:
                self._room.release()
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, found, fault)

        def settle(found: list[Address], fault: Exception | None) -> None:
            if answer.done():
                return
            if fault is None:
                answer.set_result(found)
            else:
                answer.set_exception(fault)

        threading.Thread(target=ask, name="headrace-lookup", daemon=True).start()
        return await answer


async def resolve(target: Target, policy: Policy, lookup: Lookup) -> Sequence[Address]:
    """Return the addresses that a connection to `target` may go to, at least one.

    Raises `UrlRefused` when the policy forbids any of them, and `OSError` when there is none. The refusal does not
    tell the address: a caller has no business knowing what a name means inside.
    """
    found = [target.address] if target.address is not None else await lookup(target.host, target.port)
    for address in found:
        if (rule := policy.why_not(address)) is not None:
            raise UrlRefused(rule, f"the URL is refused: {target.host} leads to an address that is not public")
    if not found:
        raise OSError(f"{target.host} has no address")
    return list(dict.fromkeys(found))[:ADDRESSES_MAX]


class Pinned(AbstractResolver):
    """A resolver for one connector that knows one name, and has sockets made for that name's addresses alone."""

    def __init__(self, host: str, addresses: Sequence[Address]) -> None:
        self._host = host
        self._addresses = [str(address) for address in addresses]

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Answer aiohttp. It asks about no address, only about names."""
        if host != self._host:
            raise OSError(f"{host} is not the name that was checked")
        return [
            ResolveResult(
                hostname=host, host=address, port=port, family=family, proto=0, flags=socket.AI_NUMERICHOST
            )
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Release nothing."""

    def socket_to(self, info: _AddressInfo) -> socket.socket:
        """Make a socket for aiohttp: the last door, whatever way it came to this address."""
        family, kind, protocol, _, address = info
        if address[0] not in self._addresses:
            raise OSError(f"{address[0]} is not an address that was checked")
        return socket.socket(family, kind, protocol)
