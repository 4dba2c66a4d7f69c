"""`backflip dpo`: comparisons in, a policy that prefers the better side out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

QUICK = (
    "--quiet", "--batch-size", 8, "--max-length", 64, "--max-new-tokens", 4, "--warmup-steps", 0, "--save-every", 1,
    "--log-every", 1,
)  # fmt: skip


def test_a_better_policy_and_an_honest_report(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from backflip.policies import load_policy

    run = tmp_path / "better"
    given = ("--policy", kit.policy, "--data", kit.pairs, "--output", run, "--holdout", 0.5, "--epochs", 4)
    said = backflip("dpo", *given, "--learning-rate", 3e-3, *QUICK)
    assert (said.code, said.err) == (0, "")
    result = json.loads((run / "result.json").read_text())
    lines = said.out.splitlines()
    assert lines[0] == f"accuracy on {result['n']} comparisons kept aside, ties left out:"
    rates = [re.findall(r"[\d.]+%", line) for line in lines[1:4]]
    assert rates[0] == [f"{result[name]:.1%}" for name in ("accuracy", "accuracy_low", "accuracy_high")]
    assert rates[1] == [f"{result[name]:.1%}" for name in ("shorter_accuracy", "shorter_low", "shorter_high")]
    assert rates[2] == ["50.0%"]
    assert result["accuracy"] == 1.0, "the chosen side says good, the rejected one bad"
    assert (result["comparisons"], result["held_out"]) == (30, True)

    before, after = load_policy(kit.policy, device="cpu"), load_policy(run / "model", device="cpu")
    ids = torch.tensor([[40, 50, 60]])
    assert after.name == "better"
    assert not torch.equal(before.model(ids).logits, after.model(ids).logits)
    plain = AutoModelForCausalLM.from_pretrained(run / "model")
    assert torch.equal(plain(ids).logits, after.model(ids).logits)
    good = torch.tensor([after.encode_completion(" good", eos=False)])
    prompt = torch.tensor([[40, 50]])
    chances = [m.model(torch.cat([prompt, good[:, :-1]], 1)).logits[0, 1:].log_softmax(-1) for m in (before, after)]
    said_good = [c.gather(1, good.T).sum().item() for c in chances]
    assert said_good[1] > said_good[0], "it says good more often than it did"

    page = (run / "report.html").read_text()
    for shown in ("margins", "accuracies", "step 0", f"step {4 * 15 // 8 + 1}"):
        assert shown in page
    again = backflip("dpo", *given, "--learning-rate", 3e-3, *QUICK)
    assert (again.code, again.out) == (0, said.out)


def test_ipo_on_an_adapter_and_on_a_store(kit: Any, backflip: Any, tmp_path: Path) -> None:
    from backflip.feedback.labelers import Oracle, answer_all
    from backflip.policies import load_policy
    from backflip.records import Prompt, Query
    from backflip.seeds import Seeds
    from backflip.store import Store

    queries = [Query(Prompt(f"the film {i}"), (" was good", " was dull" * (1 + i % 3))) for i in range(20)]
    oracle = Oracle(lambda prompt, text: -len(text), seeds=Seeds(0), noise=0.0, temperature=0.0)
    with Store(tmp_path / "feedback.db") as opened:
        answer_all(opened, oracle, queries)
    given = ("--policy", kit.policy, "--data", tmp_path / "feedback.db", "--output", tmp_path / "r", "--lora", 2)
    said = backflip("dpo", *given, "--loss", "ipo", "--learning-rate", 1e-2, "--holdout", 0, *QUICK)
    assert (said.code, "comparisons it learned from (nothing was kept aside)" in said.out) == (0, True)
    assert not (tmp_path / "r" / "model" / "adapter_config.json").exists(), "the adapter is merged into the weights"
    before, after = load_policy(kit.policy), load_policy(tmp_path / "r" / "model")
    changed = [n for n, p in after.parameters() if not torch.equal(p, before.model.state_dict()[n])]
    assert changed
    assert all("embed" not in name and "norm" not in name for name in changed), "LoRA moves linear layers only"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([], "holds no rows"),
        ([{"prompt": "a", "left": "b", "right": "c", "p_left": 0.5}], "none of the 1 comparisons prefers one text to another"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], "none of the 1 comparisons prefers one text to another"),
        ([{"prompt": "a", "chosen": "b"}], "line 1: no column 'rejected'"),
    ],
)
def test_nothing_to_learn_from_is_one_sentence(rows: list[Any], sentence: str, kit: Any, backflip: Any, tmp_path: Path) -> None:
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = backflip("dpo", "--policy", kit.policy, "--data", tmp_path / "d.jsonl", "--output", tmp_path / "r", *QUICK)
    assert (said.code, said.out) == (2, "")
    assert sentence in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--label-smoothing", 0.5), "setting 'train.label_smoothing' must be at most 0.49, not 0.5"),
        (("--beta", 0), "setting 'train.beta' must be above 0, not 0.0"),
        (("--loss", "kto"), "setting 'train.loss' is one of dpo, ipo, not 'kto'"),
    ],
)
def test_settings_out_of_range(flags: Any, sentence: str, kit: Any, backflip: Any, tmp_path: Path) -> None:
    given = ("--policy", kit.policy, "--data", kit.pairs, "--output", tmp_path / "r")
    said = backflip("dpo", *given, *flags)
    assert (said.code, said.err) == (2, f"backflip: {sentence}\n")


def test_stopped_and_started_again_ends_as_if_never_stopped(kit: Any, backflip: Any, stop_after: Any, tmp_path: Path) -> None:
    def command(name: str) -> Any:
        given = ("--policy", kit.policy, "--data", kit.pairs, "--output", tmp_path / name, "--learning-rate", 1e-3)
        return backflip("dpo", *given, *QUICK)

    stop_after(1)
    stopped = command("b")
    assert (stopped.code, stopped.out) == (130, "")
    assert stopped.err == "backflip: stopped at step 1; run the same command again to go on\n"
    assert (command("a").code, command("b").code) == (0, 0)
    for file in ("model/model.safetensors", "metrics.jsonl", "samples.jsonl", "result.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
