"""Tensors on their way to a device: nothing happens to those that are there, and a GPU gets them from pinned memory."""

from __future__ import annotations

from typing import Any

import torch

from backflip.policies.transfer import send


def test_what_is_there_stays_itself() -> None:
    x = torch.arange(5)
    assert send(x, torch.device("cpu")) is x
    assert send(x, torch.device("meta")).device.type == "meta"


def test_a_gpu_gets_it_from_pinned_memory_without_anyone_waiting() -> None:
    said: list[Any] = []

    class Host:
        device = torch.device("cpu")

        def __init__(self, n: int) -> None:
            self.n = n

        def numel(self) -> int:
            return self.n

        def pin_memory(self) -> Host:
            said.append("pin")
            return self

        def to(self, device: torch.device, non_blocking: bool = False) -> str:
            said.append((str(device), non_blocking))
            return "there"

    sent: Any = send
    assert sent(Host(3), torch.device("cuda", 0)) == "there"
    assert said == ["pin", ("cuda:0", True)]
    sent(Host(0), torch.device("cuda", 0))  # there is nothing to pin
    assert said[2:] == [("cuda:0", False)]
