"""A real language model, streamed token by token: SmolLM2-135M-Instruct on llama.cpp, no GPU needed.

    pip install 'headrace[llm]'
    headrace models pull smollm2
    headrace serve examples/smollm2.py

    headrace stream headrace/smollm2 prompt="Why is the sky blue?"

The engine decodes up to four requests in one batch, so `max_multiplexing=4`: a second caller does not wait.
"""

import os
import secrets
from pathlib import Path
from typing import Any, Literal

import xllamacpp
from pydantic import BaseModel, Field, model_validator

import headrace

SLOTS = 4
CONTEXT_TOKENS = 1024  # for each slot: the prompt and the answer together
# The engine's threads spin while they wait for each other, so one that has to share its core slows all of them.
THREADS = min(4, max(1, (os.cpu_count() or 1) // 2))
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
GGUF = os.environ.get("SMOLLM2_GGUF") or str(CACHE / "headrace/models/SmolLM2-135M-Instruct.Q4_1.gguf")


class Message(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: str


class Chat(BaseModel):
    """Either one prompt or a whole conversation."""

    prompt: str | None = Field(None, examples=["Why is the sky blue?"])
    messages: list[Message] | None = Field(None, min_length=1)
    max_tokens: int = Field(256, ge=1, le=CONTEXT_TOKENS)
    temperature: float = Field(0.2, ge=0, le=2)
    seed: int | None = Field(None, ge=0, lt=2**32)

    @model_validator(mode="after")
    def one_of_the_two(self) -> "Chat":
        if (self.prompt is None) == (self.messages is None):
            raise ValueError("give either prompt or messages")
        return self


class Delta(BaseModel):
    delta: str


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class Answer(BaseModel):
    output: str
    finish_reason: Literal["stop", "length"]
    usage: Usage


class SmolLM2(headrace.App, name="headrace/smollm2", max_multiplexing=SLOTS):
    """SmolLM2-135M-Instruct, a small chat model."""

    def setup(self) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = GGUF
        params.n_parallel = SLOTS
        params.n_ctx = SLOTS * CONTEXT_TOKENS
        params.cpuparams.n_threads = THREADS
        params.verbosity = 1  # errors only
        params.api_keys = [secrets.token_hex()]  # the engine's own HTTP port on loopback is not for use
        try:
            self.engine = xllamacpp.Server(params)
        except RuntimeError:
            raise RuntimeError(f"{GGUF} is missing or damaged; run: headrace models pull smollm2") from None

    @headrace.endpoint("/", emits=Delta)
    def chat(self, input: Chat) -> Answer:
        """Answer a prompt, or go on with a conversation."""
        pieces: list[str] = []
        finish: dict[str, Any] = {}
        stopped: list[BaseException] = []

        def on_chunk(chunk: dict[str, Any]) -> bool:
            """Send one token. True makes the engine stop and free the slot; it would swallow an exception."""
            try:
                if error := chunk.get("error"):
                    raise headrace.AppException(error["message"], status_code=error["code"])
                for choice in chunk["choices"]:
                    finish["reason"] = choice["finish_reason"]
                    if text := choice["delta"].get("content"):
                        pieces.append(text)
                        headrace.emit(Delta(delta=text))
                finish["usage"] = chunk.get("usage")
            except BaseException as error:  # Cancelled, when everybody left, is one
                stopped.append(error)
            return bool(stopped)

        messages = input.messages or [Message(role="user", content=input.prompt or "")]
        request = {
            "messages": [message.model_dump() for message in messages],
            "max_tokens": input.max_tokens,
            "temperature": input.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if input.seed is not None:
            request["seed"] = input.seed
        self.engine.handle_chat_completions(request, on_chunk)  # blocks, without the GIL
        if stopped:
            raise stopped[0]
        return Answer(output="".join(pieces), finish_reason=finish["reason"], usage=Usage(**finish["usage"]))
