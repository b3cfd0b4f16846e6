"""CUDA graphs of what a function does on the device, with what no graph can hold between them.

To launch a kernel from Python takes about as long as a small kernel runs. A graph is recorded once
and launched as one: nothing of Python runs again, the same kernels read the same memory. So what a
function reads must stay where it is, and nothing may be decided on the host meanwhile.

Where something has to be (a transport plan that a solver on the host finds, say), the function
calls `between_graphs`. A recording ends there and a new one begins behind it.
"""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

HOST = {"cpu"}
"""Kinds of devices on which a look at a value waits for nothing, so that nothing avoids it."""

Result = TypeVar("Result")
Outside = Callable[..., tuple[Tensor, ...]]
"""From tensors to tensors, whose shapes do not change from call to call."""


def is_host(tensor: Tensor) -> bool:
    """Whether the host may look at a value of it as it likes."""
    return tensor.device.type in HOST


def between_graphs(function: Outside, *inputs: Tensor) -> tuple[Tensor, ...]:
    """`function(*inputs)`, no part of a graph: it may look at values and compute on the host.

    No gradient flows through it. Outside of a recording it is called as it is.

    Example:
        >>> between_graphs(lambda x: (x.sort().values,), torch.tensor([2.0, 1.0]))
        (tensor([1., 2.]),)
    """
    recorder = _RECORDER.get()
    with torch.no_grad():
        return function(*inputs) if recorder is None else recorder.outside(function, inputs)


def at_once(*functions: Callable[[], Result]) -> list[Result]:
    """What functions return that need nothing of each other, each of one tensor.

    A graph has them side by side: most of a GPU idles while small kernels run one by one, and so
    several such chains take little longer than the longest. Give that first. Outside of a recording
    they run in turn.

    Example:
        >>> at_once(lambda: torch.zeros(1), lambda: torch.ones(1))
        [tensor([0.]), tensor([1.])]
    """
    recorder = _RECORDER.get()
    if recorder is not None:
        return recorder.maker.at_once(functions)
    others = [function() for function in functions[1:]]  # in the order of a recording, for what
    return [function() for function in functions[:1]] + others  # is random is drawn in that order


_RECORDER: ContextVar[GraphedFunction[Any] | None] = ContextVar("recorder", default=None)


@contextlib.contextmanager
def _recorded_by(recorder: GraphedFunction[Any]) -> Iterator[None]:
    token = _RECORDER.set(recorder)
    try:
        yield
    finally:
        _RECORDER.reset(token)


class Graph(Protocol):
    """One recording, as `torch.cuda.CUDAGraph` is."""

    def capture_begin(self) -> None: ...

    def capture_end(self) -> None: ...

    def replay(self) -> None: ...


BRANCHES = 2
"""What is done at once beside the first."""
_OF_THREAD = threading.local()


def _streams(device: torch.device) -> list[torch.cuda.Stream]:
    """Of this thread, the same each time: cuBLAS keeps some 60 MB for every stream it meets."""
    known: dict[torch.device, list[torch.cuda.Stream]] = _OF_THREAD.__dict__.setdefault("known", {})
    if device not in known:
        known[device] = [torch.cuda.Stream(device) for _ in range(1 + BRANCHES)]
    return known[device]


class CudaGraphs:
    """Makes the graphs of a device, all in one stream.

    PyTorch frees what cuBLAS has for a stream with the first of its graphs that goes: let them go
    together.

    Args:
        device: of all tensors.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream, *self._branches = _streams(device)

    def new_pool(self) -> Any:
        """Memory that the graphs of one recording share; one that has been given up is dead."""
        return torch.cuda.graph_pool_handle()

    def new(self, pool: Any) -> Graph:
        return _CudaGraph(pool)

    @contextlib.contextmanager
    def in_stream(self) -> Iterator[None]:
        """What is launched here runs in the stream of the recording, after what came before."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        try:
            with torch.cuda.stream(self.stream):
                yield
        finally:
            with contextlib.suppress(RuntimeError):  # of a stream whose recording has failed
                current.wait_stream(self.stream)

    def at_once(self, functions: Sequence[Callable[[], Any]]) -> list[Any]:
        """See the function; all but the first in a stream of its own, behind what came before."""
        current = torch.cuda.current_stream(self.device)
        branches = self._branches[: len(functions) - 1]
        found = []
        for stream, function in zip(branches, functions[1:], strict=True):
            stream.wait_stream(current)
            with torch.cuda.stream(stream):
                found.append(function())
        first = functions[0]()
        for stream, result in zip(branches, found, strict=True):
            current.wait_stream(stream)
            result.record_stream(current)  # it is not given back before this stream has read it
        return [first, *found]

    def collect(self) -> None:
        """Give back what is not in use: the graphs have memory of their own."""
        torch.cuda.synchronize(self.device)
        gc.collect()
        torch.cuda.empty_cache()
        if hasattr(torch._C, "_host_emptyCache"):  # pools of pinned memory go with it
            torch._C._host_emptyCache()

    def recover(self, pool: Any) -> None:
        """Take back, as far as PyTorch can, what a recording that could not end has changed.

        Allocations no longer go to its pool, and random numbers are drawn as before.
        """
        index = self.device.index if self.device.index is not None else torch.cuda.current_device()
        for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
            with contextlib.suppress(Exception):
                getattr(torch._C, name)(index, pool)
        with contextlib.suppress(Exception):
            generator = torch.cuda.default_generators[index]
            generator.graphsafe_set_state(generator.clone_state())


class _CudaGraph:
    """A `torch.cuda.CUDAGraph` in a pool, indifferent to what other threads do meanwhile."""

    def __init__(self, pool: Any) -> None:
        self._graph, self._pool = torch.cuda.CUDAGraph(), pool

    def capture_begin(self) -> None:
        # a thread that pins memory for the loader must not end the recording
        self._graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")

    def capture_end(self) -> None:
        self._graph.capture_end()

    def replay(self) -> None:
        self._graph.replay()


class GraphMaker(Protocol):
    """`CudaGraphs`, or what stands in for it."""

    def new_pool(self) -> Any: ...

    def new(self, pool: Any) -> Graph: ...

    def in_stream(self) -> contextlib.AbstractContextManager[None]: ...

    def at_once(self, functions: Sequence[Callable[[], Any]]) -> list[Any]: ...

    def collect(self) -> None: ...

    def recover(self, pool: Any) -> None: ...


def graph_maker(device: torch.device) -> GraphMaker | None:
    """What records work on a device; None where there are no graphs."""
    return CudaGraphs(device) if device.type == "cuda" else None


class GraphedFunction(Generic[Result]):
    """What a function does on the device, to be done again without Python.

    Call `warm_up` some times, `record` once, then `replay`: each `warm_up` and each `replay` is one
    call of the function. `record` is none: nothing runs.

    Args:
        function: takes nothing; reads and writes tensors that stay where they are, and returns
            tensors, which every replay writes anew.
        maker: makes the graphs.
    """

    def __init__(self, function: Callable[[], Result], maker: GraphMaker) -> None:
        self._function, self.maker = function, maker
        self._outputs: list[tuple[Tensor, ...]] = []  # of what is outside, in order
        self._met = 0  # of these, in the call that is at work
        self._recording: Graph | None = None
        self._pool: Any = None
        self._pieces: list[Callable[[], None]] = []
        self.result: Result | None = None

    def warm_up(self) -> Result:
        """Call the function as it is, so that libraries and caches are ready for a recording."""
        self._met = 0
        with self.maker.in_stream(), _recorded_by(self):
            return self._function()

    def record(self) -> None:
        """Record what the function does, without doing it.

        Raises:
            RuntimeError: it does something that can't be recorded. One may go on without.
        """
        self._met, self._pieces = 0, []
        self.maker.collect()
        self._pool = self.maker.new_pool()
        with self.maker.in_stream(), _recorded_by(self):
            try:
                self._begin()
                self.result = self._function()
                self._end()
            except BaseException:
                self._abandon()
                raise

    def replay(self) -> Result:
        """Do it again; the result is in the same tensors each time."""
        assert self.result is not None, "record it first"
        for piece in self._pieces:
            piece()
        return self.result

    def outside(self, function: Outside, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """See `between_graphs`: in a warm-up the shapes are learned, in a recording it is cut."""
        number, self._met = self._met, self._met + 1
        if self._recording is None:
            found = function(*inputs)
            own = tuple(torch.empty_like(tensor) for tensor in found)
            self._outputs[number : number + 1] = [own]
            return found
        outputs, given = self._outputs[number], [tensor.detach() for tensor in inputs]

        def run() -> None:
            with torch.no_grad():
                for tensor, value in zip(outputs, function(*given), strict=True):
                    tensor.copy_(value)

        self._end()
        self._pieces.append(run)
        self._begin()
        return outputs

    def _begin(self) -> None:
        self._recording = self.maker.new(self._pool)
        self._recording.capture_begin()

    def _end(self) -> None:
        assert self._recording is not None
        self._recording.capture_end()
        graph, self._recording = self._recording, None
        self._pieces.append(graph.replay)

    def _abandon(self) -> None:
        graph, self._recording = self._recording, None
        self._pieces, self.result = [], None
        if graph is not None:
            try:
                graph.capture_end()
            except RuntimeError:  # it was over already
                self.maker.recover(self._pool)
