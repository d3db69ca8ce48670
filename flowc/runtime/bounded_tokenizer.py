"""A model's tokenizer in a process of its own, bounded in time, memory and output.

A tokenizer and a chat template come from whoever made the weights. The library that reads the one is Rust that can
panic; a normaliser that makes forty characters of each, twelve times over, fills any memory; a template may loop for
hours. So they work in a worker (see `flowc.outside.worker`), which also has the time to start while the caller opens
the graphs.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from flowc.build.manifest import Manifest
from flowc.errors import CheckFailed, Diagnostic, FlowError, MissingTool, SpecError, WeightsError
from flowc.outside.worker import Stopped, Worker, serve
from flowc.runtime.tokenizer import TextStream, Tokenizer

TIME_LIMIT = 30.0
"""Seconds that one request may take, the start of the process included."""

CHARACTERS_A_SECOND = 100_000
"""Longer texts have more time: a tenth of what the library does on a slow machine."""

MEMORY_LIMIT = 2 << 30
"""Bytes of address space that the process may take, where the system can bound it; large vocabularies need 0.6 GB."""

LONGEST = 64 << 20
"""Bytes of an answer."""

_KINDS: Mapping[str, type[FlowError]] = {k.__name__: k for k in (CheckFailed, SpecError, WeightsError, MissingTool)}


class BoundedTokenizer:
    """What `Tokenizer` does, done by a worker. Starting is at once; the first request waits for the files to be read.

    Each method raises what `Tokenizer`'s own raises, and WeightsError `broken-tokenizer` or SpecError `chat-template`
    where the worker gave up.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._worker = Worker(__name__, memory=MEMORY_LIMIT, longest=LONGEST)
        if manifest.tokenizer_file("tokenizer.json") is not None:
            self._worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.stop()

    def encode(self, text: str, *, special_tokens: bool = True) -> list[int]:
        """See `Tokenizer.encode`."""
        with self._telling():
            return self._ask("encode", text, special_tokens, characters=len(text))

    def encode_prompt(self, text: str, *, raw: bool = False, system: str | None = None) -> list[int]:
        """See `Tokenizer.encode_prompt`."""
        with self._telling(template=True):
            whole, special_tokens = self._ask("prompt_text", text, raw, system, characters=len(text))
        return self.encode(whole, special_tokens=special_tokens)

    def stream(self, prompt: Sequence[int] = ()) -> BoundedStream:
        """See `Tokenizer.stream`."""
        return BoundedStream(self, prompt)

    def say(self, call: str, *arguments: Any) -> str:
        """A request of a stream."""
        with self._telling():
            return self._ask(call, *arguments)

    def _ask(self, call: str, *arguments: Any, characters: int = 0) -> Any:
        request = {"manifest": str(self._manifest.path), "call": call, "arguments": arguments}
        answer = self._worker.ask(request, seconds=TIME_LIMIT + characters / CHARACTERS_A_SECOND)
        if "kind" in answer:
            raise _KINDS[answer["kind"]](Diagnostic(**d) for d in answer["diagnostics"])
        return answer["value"]

    @contextmanager
    def _telling(self, *, template: bool = False) -> Generator[None]:
        try:
            yield
        except Stopped as stopped:
            what = "chat template" if template else "tokenizer"
            why = {
                "time": f"takes more than {TIME_LIMIT:.0f} seconds",
                "output": f"makes more than {LONGEST >> 20} MiB of this text",
                "memory": f"takes more than {MEMORY_LIMIT >> 30} GiB of memory",
                "crash": f"ends its process, or takes more than {MEMORY_LIMIT >> 30} GiB of memory",
            }[stopped.reason]
            if template:
                raise SpecError.of(
                    "chat-template", f"the model's {what} {why}", hint="use --raw to leave it out"
                ) from None
            raise WeightsError.of("broken-tokenizer", f"the model's {what} {why}") from None


class BoundedStream:
    """What `TextStream` does, done by the tokenizer's worker."""

    def __init__(self, tokenizer: BoundedTokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        tokenizer.say("stream", list(prompt))

    def push(self, token: int) -> str:
        """See `TextStream.push`."""
        return self._tokenizer.say("push", token)

    def finish(self) -> str:
        """See `TextStream.finish`."""
        return self._tokenizer.say("finish")


class _Server:
    """The worker's side: one model's tokenizer, and the stream that is under way."""

    def __init__(self) -> None:
        self._path = ""
        self._tokenizer: Tokenizer | None = None
        self._stream: TextStream | None = None

    def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The value of a call, or the diagnostics that it raised."""
        try:
            return {"value": self._call(request["manifest"], request["call"], request["arguments"])}
        except FlowError as error:
            told = [{"code": d.code, "message": d.message, "hint": d.hint} for d in error.diagnostics]
            return {"kind": type(error).__name__, "diagnostics": told}

    def _call(self, path: str, call: str, arguments: list[Any]) -> Any:
        from flowc.build import manifest as manifests
        from flowc.outside.foreign import foreign

        with foreign(lambda why: WeightsError.of("broken-tokenizer", f"the model's tokenizer fails: {why}")):
            if self._tokenizer is None or self._path != path:
                self._tokenizer, self._path = Tokenizer.load(manifests.load(path)), path
            match call, arguments:
                case "encode", [text, special_tokens]:
                    return self._tokenizer.encode(text, special_tokens=special_tokens)
                case "prompt_text", [text, raw, system]:
                    return self._tokenizer.prompt_text(text, raw=raw, system=system)
                case "stream", [prompt]:
                    self._stream = self._tokenizer.stream(prompt)
                    return ""
                case "push", [token] if self._stream is not None:
                    return self._stream.push(token)
                case "finish", [] if self._stream is not None:
                    return self._stream.finish()
                case _:
                    raise ValueError(call)


if __name__ == "__main__":
    serve(_Server().answer)
