"""`backflip doctor` on healthy and unhealthy machines."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from backflip.cli import doctor, main

REPOSITORY = Path(__file__).resolve().parents[2]


def test_a_healthy_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "NEED_MEMORY", 1)
    monkeypatch.setattr(doctor, "NEED_DISK", 1)
    assert main.main(["doctor", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "ready"
    assert all(line[0] in "✓–" for line in lines[:-2])
    subjects = {line.split()[1] for line in lines[:-2]}
    assert {"Python", "memory", "folder", "disk", "torch", "device", "arithmetic", "limits", "GRPO", *doctor.OPTIONAL} <= subjects


def test_an_unhealthy_machine_gets_advice_and_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "NEED_MEMORY", 1)
    versions = {"torch": "2.13.0", "peft": "0.1.0"}
    monkeypatch.setattr(doctor, "version_of", versions.get)
    assert main.main(["doctor", str(tmp_path / "nowhere")]) == 1
    printed = capsys.readouterr().out
    assert f"✗ folder        {tmp_path}/nowhere is not a folder: make it, or name another" in printed
    assert "✗ numpy         not installed: pip install 'numpy>=1.26'" in printed
    assert "✗ peft          0.1.0: older than 0.18; pip install 'peft>=0.18'" in printed
    assert "✓ torch         2.13.0\n" in printed
    assert "– wandb         optional, not installed: pip install 'backflip[trackers]'" in printed
    bad = sum(line.startswith("✗") for line in printed.splitlines())
    assert printed.splitlines()[-1] == f"{bad} things to put right (✗ above)"


def test_a_torch_that_does_not_load_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)  # what makes `import torch` raise ImportError
    last = list(doctor.findings(tmp_path))[-1]
    assert (last.state, last.subject) == ("bad", "device")
    assert "torch cannot be imported" in str(last)


def test_wrong_arithmetic_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_arithmetic().state == "good"
    monkeypatch.setattr("backflip.maths.kl.k3", lambda logp, ref_logp: ref_logp * 0.0 + 0.3679)
    assert doctor.check_arithmetic().state == "bad"


def test_a_folder_that_refuses_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(dir: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    written, room = doctor.check_folder(tmp_path)
    assert (written.state, room.subject) == ("bad", "disk")
    assert "cannot be written to (Permission denied)" in str(written)


@pytest.mark.parametrize(
    ("version", "state"), [((3, 10, 14), "bad"), ((3, 11, 0), "good"), ((3, 13, 1), "good"), ((4, 0, 0), "good")]
)
def test_python_versions(version: tuple[int, ...], state: str) -> None:
    assert doctor.check_python(version).state == state


@pytest.mark.parametrize(
    ("version", "oldest", "state"),
    [("2.13.0+cpu", "2.6", "good"), ("2.6", "2.6", "good"), ("2.5.9", "2.6", "bad"), ("15.0.0", "13", "good")],
)
def test_package_versions_compare_as_numbers(version: str, oldest: str, state: str) -> None:
    assert doctor.check_package("torch", oldest, version).state == state


def test_memory_is_judged_and_may_be_unknown() -> None:
    assert doctor.check_memory(4 * doctor.GIB).state == "good"
    assert doctor.check_memory(doctor.GIB).state == "bad"
    assert doctor.check_memory(None).state == "absent"
    measured = doctor.available_memory()
    assert measured is None or measured > 0


def test_the_devices_are_named() -> None:
    assert "2 CPU threads, no CUDA device" in doctor.check_device(2, []).detail
    assert doctor.check_device(1, ["H100", "H100"]).detail == "1 CPU thread, H100, H100"


def test_the_oldest_versions_are_those_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {Requirement(text).name: str(Requirement(text).specifier).removeprefix(">=") for text in project["dependencies"]}
    assert asked == doctor.ESSENTIAL
    for name, (extra, _) in doctor.OPTIONAL.items():
        assert name in {Requirement(text).name for text in project["optional-dependencies"][extra]}


def test_the_library_for_products_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from backflip.maths import matmul

    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    fast = doctor.check_products(matmul.Rates(180.0, 360.0, 4e-7, 4e-7))
    assert fast.state == "good"
    assert fast.detail.startswith("360 GFLOP/s by onednn (the stock library: 180): training reads about 20 thousand tokens/s")
    assert doctor.check_products(matmul.Rates(180.0, 190.0, 4e-7, 4e-7)).detail.startswith("180 GFLOP/s by stock: ")
    monkeypatch.setenv(matmul.VARIABLE, "mine")
    assert doctor.check_products(matmul.Rates(180.0, 190.0, 4e-7, 4e-7)).state == "bad"


def test_the_expected_step_is_the_least_time_over_the_efficiency() -> None:
    from backflip.maths.limits import Limits
    from backflip.maths.roofline import Group, Shape, grpo_step

    found = list(doctor.check_limits(Limits(stock_gflops=200.0, onednn_gflops=400.0, bf16_gflops=800.0, read_gb_s=50.0)))
    assert [f.subject for f in found] == ["limits", "GRPO step", "GRPO step"]
    assert "slower" not in found[0].detail
    emulated = next(doctor.check_limits(Limits(stock_gflops=200.0, onednn_gflops=100.0, bf16_gflops=50.0, read_gb_s=20.0)))
    assert "bfloat16 50 (slower here: leave precision as it is)" in emulated.detail
    assert (
        found[0].detail
        == "float32 products 200 GFLOP/s by the stock library, 400 by oneDNN, bfloat16 800; reading memory 50 GB/s"
    )
    shape = Shape(vocabulary=16384, hidden=640, feed_forward=1728, layers=10, heads=10, kv_heads=10, head_size=64)
    for finding, itemsize, gflops in ((found[1], 4, 400.0), (found[2], 2, 800.0)):
        work = grpo_step(shape, [Group(32, [64] * 8)] * 8, itemsize=itemsize, kv_itemsize=4)
        seconds = (work.flops / gflops + work.nbytes / 50.0) / 1e9 / doctor.EFFICIENCY
        assert f"{seconds:.2g} s (61M), at 50% of the limits" in finding.detail
