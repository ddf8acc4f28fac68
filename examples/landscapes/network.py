"""The model: a U-Net that looks at a noisy picture, a time and some words, and says which way the noise should go.

A rectified flow: `picture(t) = (1 - t) * clean + t * noise`, and the network learns `noise - clean`, the direction
of the straight line between the two. Walking that line from noise (t = 1) to a picture (t = 0) is how it draws.

Most of the work is done on few, thick pixels (16 x 16 and 8 x 8), so that it can be trained on CPUs. The words and
the time enter every block as a gain and a shift a channel (FiLM). At 8 x 8 every place looks at every other.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # its name everywhere

WIDTHS = (32, 96, 144)
"""Channels at 32 x 32, 16 x 16 and 8 x 8."""
SPREAD = 0.5
"""About how far the numbers of a clean picture lie from their mean."""
CONDITION = 160
FREQUENCIES = 32


class Block(nn.Module):
    """Two 3 x 3 convolutions under the condition, beside a straight way through."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, width, affine=False)
        self.film = nn.Linear(CONDITION, 2 * width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.film.weight)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        gain, shift = self.film(condition)[:, :, None, None].chunk(2, dim=1)
        inside = torch.addcmul(shift, self.norm(x), 1 + gain)
        return x + self.second(F.silu(self.first(F.silu(inside))))


class Attention(nn.Module):
    """Every place looks at every other place."""

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, width)
        self.look = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        parts = self.look(self.norm(x)).reshape(batch, 3, self.heads, width // self.heads, height * breadth)
        query, key, value = parts.transpose(-1, -2).unbind(1)
        weights = (query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)).softmax(-1)
        seen = (weights @ value).transpose(-1, -2).reshape(batch, width, height, breadth)
        return x + self.out(seen)


class Network(nn.Module):
    def __init__(self, words: int) -> None:
        super().__init__()
        high, middle, low = WIDTHS
        self.words = nn.Linear(words, CONDITION)
        self.time = nn.Linear(2 * FREQUENCIES, CONDITION)
        self.condition = nn.Linear(CONDITION, CONDITION)
        self.stem = nn.Conv2d(12, high, 3, padding=1)
        self.to_middle = nn.Conv2d(high, middle, 2, stride=2)
        self.place = nn.Parameter(torch.zeros(1, middle, 16, 16))  # where on the picture: the sky is up
        self.down = nn.ModuleList([Block(middle), Block(middle)])
        self.to_low = nn.Conv2d(middle, low, 2, stride=2)
        self.deep = nn.ModuleList([Block(low), Block(low), Block(low)])
        self.attention = Attention(low)
        self.from_low = nn.Conv2d(low, middle, 1)
        self.join_middle = nn.Conv2d(2 * middle, middle, 1)
        self.up = nn.ModuleList([Block(middle), Block(middle)])
        self.from_middle = nn.Conv2d(middle, 4 * high, 1)
        self.join_high = nn.Conv2d(2 * high, high, 1)
        self.fine = Block(high)
        self.last = nn.Conv2d(high, 12, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.normal_(self.words.weight, std=0.5)
        self.register_buffer(
            "frequencies", torch.exp(torch.linspace(0, math.log(500), FREQUENCIES)), persistent=False
        )

    def forward(self, picture: Tensor, t: Tensor, words: Tensor) -> Tensor:
        """The velocity of `picture` (N x 3 x 64 x 64, -1 to 1) at `t` (N), told `words` (N x 25, 0 or 1)."""
        angles = t[:, None] * self.frequencies
        condition = self.time(torch.cat([angles.sin(), angles.cos()], dim=1)) + self.words(words)
        condition = F.silu(self.condition(F.silu(condition)))
        # What a picture of mere colour noise would call for is known without a network; it learns the rest, at an
        # even loudness for every t (Karras et al., "Elucidating the design space of diffusion models").
        t = t[:, None, None, None]
        power = t**2 + (1 - t) ** 2 * SPREAD**2
        known = picture * (t - (1 - t) * SPREAD**2) / power
        learned = self.look(picture / power.sqrt(), condition) * (SPREAD / power.sqrt())
        return known + learned

    def look(self, picture: Tensor, condition: Tensor) -> Tensor:
        high = self.stem(F.pixel_unshuffle(picture, 2))
        x = self.to_middle(high) + self.place
        for block in self.down:
            x = block(x, condition)
        middle = x
        x = self.deep[0](self.to_low(x), condition)
        x = self.deep[1](self.attention(x), condition)
        x = self.deep[2](x, condition)
        x = F.interpolate(self.from_low(x), scale_factor=2.0, mode="nearest")
        x = self.join_middle(torch.cat([x, middle], dim=1))
        for block in self.up:
            x = block(x, condition)
        x = F.pixel_shuffle(self.from_middle(x), 2)
        x = self.fine(self.join_high(torch.cat([x, high], dim=1)), condition)
        return F.pixel_shuffle(self.last(F.silu(x)), 2)
