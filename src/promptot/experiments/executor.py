"""Who runs the cells: this process, or several on this machine."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, TypeVar

import torch

from promptot.errors import PromptotError
from promptot.reports.tables import printable

T = TypeVar("T")
R = TypeVar("R")


class Executor(Protocol):
    """Something that runs pieces of work, wherever that is; nothing is shared between them."""

    @property
    def jobs(self) -> int:
        """How many pieces run at once."""

    def map(self, work: Callable[[T], Iterable[R]], tasks: Sequence[T]) -> Generator[R, None, None]:
        """What `work` gives of every task, each result as soon as it is there.

        Args:
            work: can be sent to another process, and so can what it takes and gives.
            tasks: in the order in which they are begun.
        """


@dataclass(frozen=True)
class SerialExecutor:
    """This process, one task after the other."""

    jobs: int = 1

    def map(self, work: Callable[[T], Iterable[R]], tasks: Sequence[T]) -> Generator[R, None, None]:
        """See `Executor`."""
        for task in tasks:
            yield from work(task)


@dataclass(frozen=True)
class ProcessExecutor:
    """Processes on this machine; one that is done with a task gets the next one.

    Attributes:
        jobs: how many.
    """

    jobs: int

    def map(self, work: Callable[[T], Iterable[R]], tasks: Sequence[T]) -> Generator[R, None, None]:
        """See `Executor`.

        Raises:
            PromptotError: a process came to an end before its time; the others have gone on.
        """
        context = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads
        threads = max(1, torch.get_num_threads() // self.jobs)
        processes: dict[Connection, BaseProcess] = {}
        try:
            for _ in range(self.jobs):
                here, there = context.Pipe()
                arguments = there, work, threads
                process: BaseProcess = context.Process(target=_serve, args=arguments)
                process.start()
                processes[here] = process
                there.close()
            yield from _hand_out(list(processes), tasks)
        except BaseException:
            for process in processes.values():
                process.terminate()
            raise
        finally:
            for pipe, process in processes.items():
                pipe.close()
                process.join()
        ended = [process.exitcode for process in processes.values() if process.exitcode != 0]
        if ended:
            raise PromptotError(
                f"{len(ended)} of {self.jobs} processes ended early (exit code {ended[0]}).",
                fix="See above for why; finished cells are kept, and the same command goes on. If "
                "memory ran out, use fewer --jobs.",
            )


def _hand_out(pipes: list[Connection], tasks: Sequence[Any]) -> Iterator[Any]:
    """Give every process a task whenever it is idle (it says so by None); their results."""
    waiting = iter(tasks)
    while pipes:
        ready = wait(pipes)
        for pipe in [pipe for pipe in pipes if pipe in ready]:
            try:
                result = pipe.recv()
                if result is not None:
                    yield result
                    continue
                task = next(waiting, None)
                pipe.send(task)
                if task is not None:
                    continue
            except (EOFError, OSError):  # the process has ended
                pass
            pipes.remove(pipe)


def _serve(pipe: Connection, work: Callable[[Any], Iterable[Any]], threads: int) -> None:
    """One process: say that it is idle, do what it gets, until it gets nothing more."""
    torch.set_num_threads(threads)
    try:
        while True:
            pipe.send(None)
            task = pipe.recv()
            if task is None:
                return
            for result in work(task):
                pipe.send(result)
    except KeyboardInterrupt:
        os._exit(130)  # the parent says what there is to say
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
    except PromptotError as error:
        print(printable(str(error)), flush=True)
        raise SystemExit(1) from None
