"""Models that give out files and take them in. Each says what it saw."""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import headrace
from pydantic import BaseModel


def png(width: int = 3, height: int = 2, shade: int = 0) -> bytes:
    """A grey picture, written by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    rows = (b"\0" + bytes([shade]) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Wish(BaseModel):
    steps: int = 3
    sync_mode: bool = False


class Preview(BaseModel):
    progress: float
    preview: headrace.Image


class Drawn(BaseModel):
    images: list[headrace.Image]
    seed: int = 1


class Seen(BaseModel):
    image_url: headrace.Image
    more: list[headrace.File] = []


class Said(BaseModel):
    text: str = "hello"
    name: str | None = None
    type: str | None = None
    n: int = 1


def note(text: str) -> None:
    with open(os.environ["ZOO_NOTES"], "a") as file:
        file.write(f"{text}\n")


def look(content: bytes) -> dict[str, object]:
    return {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class Pictures(headrace.App, name="t/pictures", max_multiplexing=8):
    def setup(self) -> None:
        self.made_early = headrace.File.from_bytes(b"early", "text/plain")

    @headrace.endpoint("/draw")
    def draw(self, input: Wish) -> Iterator[Preview | Drawn]:
        """Previews, then the picture."""
        for step in range(input.steps):
            image = headrace.Image.from_bytes(png(shade=step), data_uri=input.sync_mode)
            yield Preview(progress=step / input.steps, preview=image)
        last = headrace.Image.from_bytes(png(40, 30), file_name="a lake.png", data_uri=input.sync_mode)
        yield Drawn(images=[last])

    @headrace.endpoint("/draw-async")
    async def draw_async(self, input: Wish) -> AsyncIterator[Preview | Drawn]:
        for step in range(input.steps):
            yield Preview(progress=0.0, preview=headrace.Image.from_bytes(png(shade=step)))
            await asyncio.sleep(0)
        yield Drawn(images=[await asyncio.to_thread(headrace.Image.from_bytes, png())])

    @headrace.endpoint("/draw-pil")
    def draw_pil(self, input: Wish) -> Iterator[Preview | Drawn]:
        from PIL import Image

        for step in range(input.steps):
            preview = Image.new("RGB", (8, 6), (step, 0, 0))
            yield Preview(progress=0.5, preview=headrace.Image.from_pil(preview, "jpeg"))
        yield Drawn(images=[headrace.Image.from_pil(Image.new("RGBA", (16, 12)), kind) for kind in (None, "webp")])

    @headrace.endpoint("/say")
    def say(self, input: Said) -> dict[str, object]:
        """Files of a text."""
        files = [
            headrace.File.from_bytes(f"{input.text}{n or ''}".encode(), input.type, file_name=input.name)
            for n in range(input.n)
        ]
        return {"files": files}

    @headrace.endpoint("/copy")
    def copy(self, input: Said) -> headrace.File:
        path = Path(os.environ["ZOO_NOTES"]).parent / "a copy.txt"
        path.write_text(input.text)
        return headrace.File.from_path(path)

    @headrace.endpoint("/early")
    def early(self) -> headrace.File:
        return self.made_early

    @headrace.endpoint("/in-a-thread")
    def in_a_thread(self) -> dict[str, object]:
        made: list[headrace.File] = []
        thread = threading.Thread(target=lambda: made.append(headrace.File.from_bytes(b"x", "text/plain")))
        thread.start()
        thread.join()
        return {"file": made[0]}

    @headrace.endpoint("/see")
    def see(self, input: Seen) -> dict[str, object]:
        note("see")
        try:
            content = input.image_url.as_bytes()
        finally:
            note("saw")
        return {"image": look(content), "more": [look(file.as_bytes()) for file in input.more]}

    @headrace.endpoint("/see-async")
    async def see_async(self, input: Seen) -> dict[str, object]:
        note("see")
        try:
            content = await input.image_url.as_bytes_async()
        finally:
            note("saw")
        return {"image": look(content), "more": [look(await file.as_bytes_async()) for file in input.more]}

    @headrace.endpoint("/see-badly")
    async def see_badly(self, input: Seen) -> dict[str, object]:
        return look(input.image_url.as_bytes())

    @headrace.endpoint("/see-kindly")
    def see_kindly(self, input: Seen) -> dict[str, object]:
        try:
            return look(input.image_url.as_bytes())
        except headrace.FieldException as fault:
            return {"field": fault.field, "message": fault.message}

    @headrace.endpoint("/measure")
    def measure(self, input: Seen) -> dict[str, object]:
        image = input.image_url.to_pil()
        return {"size": image.size, "mode": image.mode}

    @headrace.endpoint("/pass-on")
    def pass_on(self, input: Seen) -> dict[str, object]:
        return {"image": input.image_url}
