"""What clears away unfinished uploads harms none that goes on, whatever becomes of the clock meanwhile."""

import asyncio

import pytest

from headrace.core.limits import Limits
from headrace.core.stored_file import FileId, NewFile
from headrace.gateway.uploads import UploadView

PATIENCE_S = 30.0


class Parts:
    """A folder of parts; while the first upload's go, something happens."""

    def __init__(self, meanwhile):
        self.dropped = []
        self.is_done = asyncio.Event()
        self._meanwhile = meanwhile

    async def drop(self, upload):
        if not self.dropped:
            self._meanwhile()
        self.dropped.append(upload)
        self.is_done.set()


def begun(view, number):
    new = NewFile(content_type="image/png", id=FileId(f"{number:032x}"))
    return view.uploads.begin(None, new, has_parts=True, random=bytes([number]) * 48, now=0.0)


@pytest.mark.parametrize("meanwhile", ["it is finished", "it is gone", "a part comes in"])
def test_an_upload_that_is_used_while_older_ones_are_cleared_away_stays_as_it_is(meanwhile):
    async def scene():
        def happens():
            if meanwhile == "a part comes in":
                second.users += 1
            else:
                view.uploads.end(second, is_finished=meanwhile == "it is finished")

        parts = Parts(happens)
        view = UploadView(None, parts, None, Limits(), secret=b"")
        first, second, third = (begun(view, number) for number in (1, 2, 3))
        clearing = asyncio.create_task(view.run())
        async with asyncio.timeout(PATIENCE_S):
            while len(view.uploads) > (meanwhile == "a part comes in") and not clearing.done():
                await asyncio.sleep(0)
        assert not clearing.done(), clearing.exception()
        clearing.cancel()
        await asyncio.wait([clearing])
        assert parts.dropped == [first.id, third.id]
        assert second.is_over == (meanwhile != "a part comes in")

    asyncio.run(scene())
