"""Words to pictures, with previews on the way: a small model of our own, no GPU needed.

    pip install 'headrace[landscapes]'
    headrace serve examples/landscapes/app.py

    headrace stream headrace/landscapes prompt="sunset over the mountains, with a lake"

It takes the inputs of fal's text-to-image models and answers in their shape, so that what was written for one of
those finds pictures here, under its own name:

    headrace serve examples/landscapes/app.py --alias fal-ai/flux=headrace/landscapes

But it only paints landscapes, and only out of 25 words: see MODEL_CARD.md.

Up to eight requests draw together: a step of all of them is one forward pass (studio.py).
"""

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Literal

from model import GUIDANCE, STEPS, Drawing, Model, Pixels
from PIL import Image
from pydantic import BaseModel, Field
from studio import Studio
from words import WORDS

import headrace

REQUESTS = 8
PREVIEW_PIXELS = 256  # of the longer side
SEEDS = 2**31

Preset = Literal["square_hd", "square", "portrait_4_3", "portrait_16_9", "landscape_4_3", "landscape_16_9"]


class Size(BaseModel):
    width: int = Field(ge=64, le=2048, description="In pixels.")
    height: int = Field(ge=64, le=2048, description="In pixels.")


PRESETS = {
    "square_hd": Size(width=1024, height=1024),
    "square": Size(width=512, height=512),
    "portrait_4_3": Size(width=768, height=1024),
    "portrait_16_9": Size(width=576, height=1024),
    "landscape_4_3": Size(width=1024, height=768),
    "landscape_16_9": Size(width=1024, height=576),
}


class Order(BaseModel):
    prompt: str = Field(
        max_length=2000,
        examples=["a sunset over mountains"],
        description=f"The model hears these words and no others: {', '.join(WORDS)}.",
    )
    image_size: Preset | Size = Field(
        "landscape_4_3",
        description="The model draws 64 x 64 and a second one makes 256 x 256 of that. The middle is cut out in "
        "the shape asked for, then stretched to the size: more pixels show nothing more.",
    )
    num_inference_steps: int = Field(STEPS, ge=1, le=50)
    num_images: int = Field(1, ge=1, le=4)
    seed: int | None = Field(
        None, ge=0, lt=2**53, description="Of the first picture; the second has the next one."
    )
    guidance_scale: float = Field(
        GUIDANCE, ge=1, le=20, description="How much more the words count than by nature."
    )
    output_format: Literal["jpeg", "png"] = "jpeg"
    sync_mode: bool = Field(default=False, description="Pictures as data URIs, which leave nothing on the server.")


class Preview(BaseModel):
    """What the pictures will be, as far as is known by now; small, and always as data URIs."""

    progress: float
    message: str
    images: list[headrace.Image]


class Timings(BaseModel):
    inference: float = Field(description="Seconds from the first step to the last picture.")


class Drawn(BaseModel):
    images: list[headrace.Image]
    seed: int
    prompt: str
    timings: Timings


class Landscapes(headrace.App, name="headrace/landscapes", max_multiplexing=REQUESTS):
    """Landscapes of 25 words, by a model of 2 million weights."""

    async def setup(self) -> None:
        self.model = await asyncio.to_thread(Model)
        self.studio = Studio(self.model)
        self.work = asyncio.create_task(self.studio.work())

    async def teardown(self) -> None:
        self.work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.work

    @headrace.endpoint("/")
    async def draw(self, input: Order) -> AsyncGenerator[Preview | Drawn, None]:
        """Draw pictures of a prompt; each step is a preview."""
        begun = time.monotonic()
        size = PRESETS[input.image_size] if isinstance(input.image_size, str) else input.image_size
        seed = secrets.randbelow(SEEDS) if input.seed is None else input.seed
        steps = input.num_inference_steps
        drawings = [
            Drawing(input.prompt, seed + number, steps, input.guidance_scale) for number in range(input.num_images)
        ]
        step, look = 0, []
        async with contextlib.aclosing(self.studio.draw(drawings)) as looks:
            async for look in looks:
                step += 1
                previews = await asyncio.to_thread(preview, look, size)
                yield Preview(progress=step / steps, message=f"step {step} of {steps}", images=previews)
        images = await asyncio.to_thread(self.finish, look, size, input)
        timings = Timings(inference=round(time.monotonic() - begun, 3))
        yield Drawn(images=images, seed=seed, prompt=input.prompt, timings=timings)

    @headrace.endpoint("/schnell")
    async def schnell(self, input: Order) -> AsyncGenerator[Preview | Drawn, None]:
        """The same, where callers of fal-ai/flux/schnell look for it."""
        async with contextlib.aclosing(self.draw(input)) as items:
            async for item in items:
                yield item

    def finish(self, look: Sequence[Pixels], size: Size, order: Order) -> list[headrace.Image]:
        """The finished pictures, enlarged, in the size and the format of the order."""
        return [
            headrace.Image.from_pil(
                cut(Image.fromarray(self.model.enlarge(pixels)), size).resize(
                    (size.width, size.height), Image.Resampling.LANCZOS
                ),
                order.output_format,
                data_uri=order.sync_mode,
            )
            for pixels in look
        ]


def preview(look: Sequence[Pixels], size: Size) -> list[headrace.Image]:
    """Small JPEGs in the shape of the finished pictures."""
    shrink = PREVIEW_PIXELS / max(size.width, size.height)
    small = max(1, round(size.width * shrink)), max(1, round(size.height * shrink))
    images = (cut(Image.fromarray(pixels), size).resize(small, Image.Resampling.BICUBIC) for pixels in look)
    return [headrace.Image.from_pil(image, "jpeg", quality=75, data_uri=True) for image in images]


def cut(image: Image.Image, size: Size) -> Image.Image:
    """The largest part of the middle that has the shape of `size`."""
    width = min(image.width, max(1, round(image.height * size.width / size.height)))
    height = min(image.height, max(1, round(image.width * size.height / size.width)))
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
