"""Makes landscapes.onnx from nothing: paints the lessons, trains the network on the CPU, exports it.

    pip install -r examples/landscapes/requirements-train.txt
    python examples/landscapes/train.py                  # under two hours on two cores; see --minutes
    python examples/landscapes/train.py --minutes 0      # only export what the last checkpoint holds

It may be stopped at any time: the same command goes on from the last checkpoint. Everything it keeps lies under
--work, and only landscapes.onnx beside this file is replaced, at the end.
"""

from __future__ import annotations

import argparse
import math
import time
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
from network import Network
from numpy.typing import NDArray
from paint import PIXELS, paint
from torch import Tensor, distributed, multiprocessing
from words import WORDS

BATCH = 32  # of each process
WARM_UP = 100  # steps
MUON_RATE = 0.02
ADAM_RATE = 2e-3
T_MIDDLE, T_SPREAD = 0.8, 1.2  # of the logit of t
ALL_WORDS_DROPPED = 0.1  # of the pictures: what guidance compares with
CHECKPOINT_SECONDS = 180
LONG_PAUSE = 30.0  # seconds: a step that took longer was suspended, and is not counted


def lesson(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """One picture, and a 1 for each of WORDS that it shows."""
    pixels, words = paint(np.random.default_rng(index))
    return pixels, np.array([word in words for word in WORDS], np.uint8)


def lessons(work: Path, count: int, workers: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """`count` pictures and their words, painted once and kept under `work`; read from the disk when needed."""
    kept = work / f"pixels-{count}.npy", work / f"words-{count}.npy"
    if not kept[1].exists():
        work.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(kept[0], "w+", np.uint8, (count, PIXELS, PIXELS, 3))  # type: ignore[no-untyped-call]
        words = np.empty((count, len(WORDS)), np.uint8)
        with Pool(workers) as pool:
            for index, (picture, said) in enumerate(pool.imap(lesson, range(count), chunksize=64)):
                pixels[index], words[index] = picture, said
                if index % 1000 == 0:
                    print(f"painted {index} of {count}", flush=True)
        pixels.flush()
        np.save(kept[1], words)  # last: it says that all is there
    return np.load(kept[0], mmap_mode="r"), np.load(kept[1])


Lesson = tuple[Tensor, Tensor, Tensor, Tensor]
"""Pictures, noise, t, words: a batch of each."""


class Muon(torch.optim.Optimizer):
    """Momentum whose step has all its singular values alike, for weights that are matrices (a convolution is one).

    Four Newton-Schulz rounds bring the singular values near 1 without a decomposition.
    """

    def __init__(self, parameters: list[Tensor], lr: float, momentum: float = 0.95, decay: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                average = state.setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                matrix = weight.grad.lerp(average, group["momentum"]).flatten(1)
                update = orthogonal(matrix)
                scale = 0.2 * math.sqrt(max(matrix.shape)) * 0.5
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.add_(update.view_as(weight), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor) -> Tensor:
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(4):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return (x.T if tall else x).float()


class Training:
    """The network and its two optimizers. Their rates fall to nearly nothing, so the last weights are the best.

    Several processes train together: each has a copy, works on a batch of its own, and all take the mean of their
    gradients. Beside other work on the machine that is faster than one process of many threads, which wait for
    each other hundreds of times a step.
    """

    def __init__(self, work: Path, rank: int, ranks: int) -> None:
        self.rank, self.ranks = rank, ranks
        torch.manual_seed(0)
        self.checkpoint = work / "checkpoint.pt"
        self.network = Network(len(WORDS)).to(memory_format=torch.channels_last)
        named = list(self.network.named_parameters())
        inner = [p for n, p in named if p.ndim == 4 and not n.startswith(("stem", "last", "place"))]
        outer = [p for p in self.network.parameters() if all(p is not q for q in inner)]
        self.optimizers: list[tuple[torch.optim.Optimizer, float]] = [
            (Muon(inner, MUON_RATE), MUON_RATE),
            (torch.optim.AdamW(outer, ADAM_RATE, betas=(0.9, 0.99), weight_decay=0.01), ADAM_RATE),
        ]
        self.steps = 0
        self.seconds = 0.0
        """Time spent training; what was spent suspended is not in it."""
        if self.checkpoint.exists():
            self.load()

    def load(self) -> None:
        kept = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(kept["network"])
        for (optimizer, _), state in zip(self.optimizers, kept["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.steps, self.seconds = kept["steps"], kept["seconds"]

    def save(self) -> None:
        unfinished = self.checkpoint.with_suffix(".tmp")
        kept = {
            "network": self.network.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer, _ in self.optimizers],
            "steps": self.steps,
            "seconds": self.seconds,
        }
        torch.save(kept, unfinished)
        unfinished.rename(self.checkpoint)

    def step(self, lesson: Lesson, seconds: float, progress: float) -> float:
        """One step on a batch; `progress` (0 to 1) is how much of the time is spent. Returns the loss.

        The clock of the first process is everyone's: `seconds` is what this step adds to it.
        """
        pictures, noise, t, words = lesson
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.network(torch.lerp(pictures, noise, t[:, None, None, None]), t, words)
        loss = (velocity.float() - (noise - pictures)).square().mean()
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        loss_of_all, seconds_of_first = self.share(float(loss.detach()), seconds if self.rank == 0 else 0.0)
        self.seconds += seconds_of_first
        self.steps += 1
        rate = min(1.0, self.steps / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1))))
        for optimizer, full in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = full * rate
            optimizer.step()
        return loss_of_all / self.ranks

    def share(self, *numbers: float) -> list[float]:
        """Gives every process the mean of all gradients, and the sum of each of `numbers`."""
        parameters = list(self.network.parameters())
        flat = torch.cat([*(p.grad.reshape(-1) for p in parameters), torch.tensor(numbers)])  # type: ignore[union-attr]
        distributed.all_reduce(flat)
        parts = flat.split([*(p.numel() for p in parameters), len(numbers)])
        for parameter, part in zip(parameters, parts[:-1], strict=True):
            parameter.grad = part.view_as(parameter) / self.ranks
        return parts[-1].tolist()  # type: ignore[no-any-return]


def batch(pixels: NDArray[np.uint8], said: NDArray[np.uint8], rng: np.random.Generator) -> Lesson:
    """Some pictures, half of them mirrored, some of their words unsaid, so that what is not said stays open."""
    chosen = rng.integers(0, len(pixels), BATCH)
    pictures = torch.from_numpy(pixels[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
    mirrored = torch.from_numpy(rng.random(BATCH) < 0.5)[:, None, None, None]
    pictures = torch.where(mirrored, pictures.flip(3), pictures)
    silence = rng.choice([0.0, 0.15, 0.5], (BATCH, 1), p=[0.4, 0.4, 0.2])  # of each word
    heard = (rng.random(said[chosen].shape) >= silence) & (rng.random((BATCH, 1)) >= ALL_WORDS_DROPPED)
    words = torch.from_numpy((said[chosen] * heard).astype(np.float32))
    noise = torch.from_numpy(rng.standard_normal(pictures.shape, np.float32))
    # Where the moon stands, and that there is one and not two, is decided while nearly all is noise.
    t = torch.sigmoid(torch.from_numpy(rng.standard_normal(BATCH, np.float32)) * T_SPREAD + T_MIDDLE)
    return pictures.contiguous(memory_format=torch.channels_last), noise, t, words


def train(rank: int, options: argparse.Namespace) -> None:
    """The life of one of the processes that train together."""
    torch.set_num_threads(1)
    meet = options.work / "meet"
    distributed.init_process_group(
        "gloo", init_method=f"file://{meet.resolve()}", rank=rank, world_size=options.workers
    )
    training = Training(options.work, rank, options.workers)
    pixels, said = lessons(options.work, options.pictures, options.workers)
    seed = [rank, training.steps]
    rng = np.random.default_rng(seed)
    limit = options.minutes * 60
    losses: list[float] = []
    saved, begun, took = training.seconds, time.monotonic(), 0.0
    while training.seconds < limit and training.steps < options.steps:
        progress = max(training.seconds / limit, training.steps / options.steps)
        losses.append(training.step(batch(pixels, said, rng), took, progress))
        now = time.monotonic()
        took = now - begun if now - begun < LONG_PAUSE else 0.0
        begun = now
        if rank == 0 and training.steps % 100 == 0:
            print(
                f"step {training.steps} minute {training.seconds / 60:.1f} loss {np.mean(losses[-100:]):.4f}",
                flush=True,
            )
        if rank == 0 and training.seconds - saved > CHECKPOINT_SECONDS:
            training.save()
            saved = training.seconds
    if rank == 0:
        training.save()
    distributed.destroy_process_group()


def main() -> None:
    here = Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=100)
    parser.add_argument("--steps", type=int, default=10**9)
    parser.add_argument("--pictures", type=int, default=24_000)
    parser.add_argument("--workers", type=int, default=2, help="processes that paint, then train")
    parser.add_argument("--work", type=Path, default=here / ".work", help="where lessons and checkpoints are kept")
    parser.add_argument("--output", type=Path, default=here / "landscapes.onnx")
    options = parser.parse_args()
    lessons(options.work, options.pictures, options.workers)
    (options.work / "meet").unlink(missing_ok=True)
    multiprocessing.spawn(train, (options,), nprocs=options.workers)  # type: ignore[no-untyped-call]
    import export

    export.network(Training(options.work, 0, 1).network, options.output)


if __name__ == "__main__":
    main()
