"""Work recorded once as CUDA graphs and replayed: a hundred small kernels for the price of one launch.

A graph repeats the kernels of its recording on the addresses of its recording. So the work must read and write tensors that
stay where they are, leave nothing behind in tensors it made itself, and never wait for the device. Elsewhere than on CUDA the
same work is called as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch


class Recorder(Protocol):
    """How a device records work."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work, so that libraries have made what they make at first use."""

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """What does the same work again, at once; recording does not do it."""


class Graphs:
    """One piece of work for a few shapes, each recorded apart, at its second call: the first, done as it stands, warms up.

    Without a recorder every call is done as it stands.
    """

    def __init__(self, recorder: Recorder | None) -> None:
        self.recorder = recorder
        self.warm: set[tuple[int, ...]] = set()
        self.recorded: dict[tuple[int, ...], Callable[[], None]] = {}

    def __call__(self, work: Callable[..., None], *shape: int) -> None:
        """`work(*shape)`, which must be the same work in every call."""
        if self.recorder is None:
            work(*shape)
        elif shape not in self.warm:
            self.recorder.warm_up(lambda: work(*shape))
            self.warm.add(shape)
        else:
            if shape not in self.recorded:
                self.recorded[shape] = self.recorder.record(lambda: work(*shape))
            self.recorded[shape]()


class CudaRecorder:
    """CUDA graphs that share one pool of memory: what one of them makes on its way, the next may overwrite."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.pool = torch.cuda.graph_pool_handle()

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do the work on the stream it is recorded on later."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            work()
        present.wait_stream(self.stream)

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        """A graph's replay."""
        graph = torch.cuda.CUDAGraph()
        # Only this thread's calls may disturb the recording: others go on as they like.
        with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def recorder_for(device: torch.device) -> Recorder | None:
    """The recorder of a device, if it has one."""
    return CudaRecorder(device) if device.type == "cuda" else None
