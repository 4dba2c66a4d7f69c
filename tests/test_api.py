"""The Python front: ten lines from a policy to ratings, and what each of them promises."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import backflip as bf
from backflip.errors import ConfigError, NumericsError, UserError
from tests.tiny_models import TEXTS, tiny, vowels, weights

README = Path(__file__).resolve().parents[1] / "README.md"
PROMPTS = [f"the {word} was" for word in ("film", "plot", "cat", "dog", "mat", "end", "sight", "actor", "scene")]

SHORT: dict[str, Any] = {"max_new_tokens": 5}


def oracle(name: str = "ann") -> bf.Oracle:
    """Somebody who likes vowels and never errs."""

    def share(prompt: bf.Prompt, text: str) -> float:
        return vowels([prompt], [text])[0]

    return bf.Oracle(share, seeds=bf.Seeds(0), name=name, noise=0.0, temperature=0.0)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with bf.Store(tmp_path / "feedback.db") as opened:
        yield opened


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def quick_ppo(**changes: Any) -> Any:
    defaults = {"steps": 2, "batch_size": 8, "ppo_epochs": 1, "learning_rate": 1e-3, "max_new_tokens": 5}
    return bf.ppo(**(defaults | changes))


def test_the_public_names_are_these_and_no_others() -> None:
    assert bf.__all__ == [
        "Client", "Oracle", "Prompt", "RewardModel", "Seeds", "Store",
        "algorithm", "ask", "dpo", "fit_reward", "grpo", "improve", "load_policy", "ppo", "rate", "rloo", "sft",
    ]  # fmt: skip
    assert all(getattr(bf, name) is not None for name in bf.__all__)
    assert set(bf.__all__) <= set(dir(bf))
    with pytest.raises(AttributeError, match="has no attribute 'imporve'"):
        bf.imporve  # noqa: B018


def test_a_public_name_loads_only_what_it_needs() -> None:
    code = "import sys, backflip as bf; bf.Client, bf.Prompt, bf.Store, bf.Oracle, bf.Seeds; print('torch' in sys.modules)"
    source = str(README.parent / "src")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": source}, timeout=60)
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_no_public_name_is_hidden_by_a_room_of_the_same_name() -> None:
    rooms = {path.stem for path in (README.parent / "src" / "backflip").iterdir()}
    assert rooms.isdisjoint(bf.__all__), "importing the room would replace the public name"


def test_the_ten_lines_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    block = re.findall(r"```python\n(import backflip as bf\n.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    tiny(name="toy").save(tmp_path / "toy")
    swaps = {
        r'"Qwen/[^"]*", lora=16': f'"{tmp_path / "toy"}", lora=2',
        r"n=200\)": "n=20, labeler=judge, max_new_tokens=5)",
        r"(store\.comparisons\(\))\)": r"\1, batch_size=8, max_length=64, learning_rate=1e-3)",
        r"bf\.ppo\(": "bf.ppo(steps=2, batch_size=8, ppo_epochs=1, max_new_tokens=5, learning_rate=1e-3, ",
        r"store, prompts\)\)": "store, prompts, judge, max_new_tokens=5))",
    }
    for old, new in swaps.items():
        block, n = re.subn(old, new, block)
        assert n == 1, f"{old} is not in the README's lines"
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"prompts": PROMPTS, "judge": oracle()}
    exec(compile(block, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "toy+ppo" in printed
    assert "95 % interval" in printed
    assert re.search(r"\d\s+toy(\+ppo)?\s+\d+\s", printed), "both have a rating"
    assert names["run"].metrics["kl_coef"] > 0
    names["store"].close()


def test_ask_files_pairs_and_has_them_answered(store: Any) -> None:
    policy = tiny(name="toy")
    queries = bf.ask(store, policy, PROMPTS, n=25, **SHORT)
    assert 20 <= len(queries) <= 25
    assert all(query.policies == ("toy", "toy") for query in queries)
    assert store.unanswered() == queries
    assert {query.prompt.text for query in queries} == set(PROMPTS), "more questions than prompts go round"
    assert bf.ask(store, policy, PROMPTS, n=25, labeler=oracle(), **SHORT) == queries, "the same seed asks the same"
    assert (len(store.queries()), len(store.comparisons()), store.unanswered()) == (len(queries), len(queries), [])
    assert bf.ask(store, policy, PROMPTS, n=25, seed=1, **SHORT) != queries


def test_prompts_come_in_every_form(store: Any, tmp_path: Path) -> None:
    from backflip.api import as_prompts

    (tmp_path / "p.txt").write_text("the film\nthe plot\n")
    talk = [{"role": "user", "content": "Hi"}]
    made = as_prompts(["a", bf.Prompt("b"), talk])
    assert [prompt.text if isinstance(prompt.text, str) else prompt.plain for prompt in made] == ["a", "b", "user: Hi"]
    assert [prompt.text for prompt in as_prompts(tmp_path / "p.txt")] == ["the film", "the plot"]
    assert as_prompts(str(tmp_path / "p.txt")) == as_prompts(tmp_path / "p.txt")
    assert len(bf.ask(store, tiny(), [talk], n=3, **SHORT)) > 0
    assert as_prompts([{"prompt": "a", "answer": 4}]) == [bf.Prompt("a", {"answer": 4})]
    for wrong in ({"promt": "a"}, 3, [{"content": "Hi"}]):
        with pytest.raises(UserError, match="a prompt is text, a Prompt, a list of messages or a row with 'prompt', not"):
            as_prompts([wrong])
    with pytest.raises(UserError, match="there are no prompts"):
        bf.ask(store, tiny(), [])


def test_fit_reward_learns_and_reports(store: Any, tmp_path: Path) -> None:
    policy = tiny()
    before = weights(policy.model)
    bf.ask(store, policy, PROMPTS, n=150, labeler=oracle(), **SHORT)
    learn = {"epochs": 6, "batch_size": 8, "learning_rate": 3e-3, "holdout": 0.2, "max_length": 64}
    reward = bf.fit_reward(policy, store.comparisons(), tmp_path / "reward", quiet=True, **learn)
    assert same(before, weights(policy.model)), "the policy stays as it was"
    assert reward.report.accuracy_low <= reward.report.accuracy <= reward.report.accuracy_high
    assert reward.report.n > 5
    good, bad = reward(["the film was"] * 2, ["aeiou aeio", "xkcd bcd"])
    assert good > bad
    again = bf.fit_reward(policy, store.comparisons(), tmp_path / "reward", quiet=True, **learn)
    assert again.report == reward.report
    assert same(weights(again.model), weights(reward.model))
    loaded = bf.RewardModel.load(tmp_path / "reward" / "model")
    assert loaded(["the"], [" film"]) == reward(["the"], [" film"])
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        bf.fit_reward(policy, store.comparisons()[1:], tmp_path / "reward", quiet=True, **learn)


def test_improve_leaves_the_policy_and_returns_a_better_one(tmp_path: Path) -> None:
    policy = tiny(name="toy")
    before = weights(policy.model)
    seen: list[Any] = []

    def reward(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        seen.append(columns)
        return vowels(prompts, completions)

    prompts = [bf.Prompt(text, {"number": i}) for i, text in enumerate(PROMPTS)]
    run = bf.improve(policy, prompts, reward, quick_ppo(), tmp_path / "ppo", quiet=True, gold=vowels)
    assert same(before, weights(policy.model))
    assert not same(before, weights(run.policy.model))
    assert (policy.name, run.policy.name, run.folder) == ("toy", "toy+ppo", tmp_path / "ppo")
    assert run.metrics["objective/gold"] == pytest.approx(run.metrics["objective/scores"])
    assert len(seen[0]["number"]) == 8, "a reward sees the other columns of the prompts' rows"
    again = bf.improve(policy, prompts, reward, quick_ppo(), tmp_path / "ppo", quiet=True, gold=vowels)
    assert same(weights(again.policy.model), weights(run.policy.model)), "a finished run is taken up, not repeated"
    assert (again.policy.name, again.metrics) == (run.policy.name, run.metrics)
    elsewhere = bf.improve(policy, prompts, reward, quick_ppo(), quiet=True, gold=vowels)
    assert same(weights(elsewhere.policy.model), weights(run.policy.model)), "the same seed improves the same way"
    assert (elsewhere.folder / "model" / "config.json").exists()


def test_improving_an_adapted_policy_moves_its_adapter_only(tmp_path: Path) -> None:
    tiny(name="toy").save(tmp_path / "toy")
    policy = bf.load_policy(tmp_path / "toy", lora=2)
    run = bf.improve(policy, PROMPTS, vowels, quick_ppo(), quiet=True)
    before, after = weights(policy.model), weights(run.policy.model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("lora" in name for name in changed)


def test_a_reward_that_is_not_finite_stops_the_run() -> None:
    def broken(prompts: list[Any], completions: list[str], **columns: list[Any]) -> list[float]:
        return [float("inf")] * len(completions)

    with pytest.raises(NumericsError, match="reward 'broken' is inf for row 1"):
        bf.improve(tiny(), PROMPTS, broken, quick_ppo(), quiet=True)


def test_dpo_takes_a_list_a_store_or_a_file_and_leaves_the_policy(store: Any, tmp_path: Path) -> None:
    policy = tiny(name="toy")
    before = weights(policy.model)
    bf.ask(store, policy, PROMPTS, n=60, labeler=oracle(), **SHORT)
    learn: dict[str, Any] = {
        "epochs": 3, "batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 0, "max_length": 48, "max_new_tokens": 4,
        "quiet": True,
    }  # fmt: skip
    run = bf.dpo(policy, store, tmp_path / "dpo", **learn)
    assert same(before, weights(policy.model))
    assert not same(before, weights(run.policy.model))
    assert (run.policy.name, run.folder) == ("toy+dpo", tmp_path / "dpo")
    assert 0 <= run.metrics["accuracy_low"] <= run.metrics["accuracy"] <= run.metrics["accuracy_high"] <= 1
    again = bf.dpo(policy, store.comparisons(), tmp_path / "dpo", **learn)
    assert same(weights(again.policy.model), weights(run.policy.model)), "a finished run is taken up, not repeated"
    for given in (store.path, str(store.path)):
        assert same(weights(bf.dpo(policy, given, **learn).policy.model), weights(run.policy.model))
    assert not same(weights(bf.dpo(policy, store, beta=0.5, loss="ipo", **learn).policy.model), weights(run.policy.model))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        bf.dpo(policy, store, tmp_path / "dpo", beta=0.5, **learn)
    with pytest.raises(ConfigError, match="unknown setting 'bta'; did you mean 'beta'"):
        bf.dpo(policy, store, bta=0.5)
    with pytest.raises(UserError, match="there are no comparisons to learn from"):
        bf.dpo(policy, [], quiet=True)


def test_sft_of_pairs_and_of_texts(tmp_path: Path) -> None:
    policy = tiny(name="toy")
    before = weights(policy.model)
    pairs = [(prompt, " good") for prompt in PROMPTS]
    learn: dict[str, Any] = {"epochs": 6, "batch_size": 5, "learning_rate": 1e-2, "holdout": 0.2, "quiet": True}
    run = bf.sft(policy, pairs, tmp_path / "sft", **learn)
    assert same(before, weights(policy.model))
    assert run.policy.name == "toy+sft"
    assert run.metrics["eval_loss"] < 2.0, "from ln 280 = 5.6 nats per token"
    texts = bf.sft(policy, [f"{prompt} good" for prompt in PROMPTS], **learn)
    assert texts.metrics["eval_loss"] < 5.0
    (tmp_path / "d.jsonl").write_text('{"prompt": "the film was", "completion": " good"}\n' * 10)
    assert bf.sft(policy, tmp_path / "d.jsonl", **learn).metrics["examples"] == 8
    with pytest.raises(UserError, match="mixes plain texts and"):
        bf.sft(policy, ["a", ("b", "c")])


def test_ppo_settings_by_name() -> None:
    made = bf.ppo(kl_target=3.0, max_new_tokens=48, learning_rate="1e-4", optim={"weight_decay": 0.1})
    assert (made.kl_target, made.sampling.max_new_tokens) == (3.0, 48)
    assert (made.optim.learning_rate, made.optim.weight_decay) == (1e-4, 0.1)
    assert made.optim.max_grad_norm is None, "what is not named keeps PPO's own default"
    assert made.sampling.ignore_eos
    assert bf.ppo(sampling=made.sampling).sampling == made.sampling
    assert bf.grpo(num_generations=8).num_generations == 8
    assert bf.grpo(num_generations=8).critic == bf.rloo().critic == "none"
    assert bf.rloo(kl_coef=0.1).policy_loss == "reinforce"
    with pytest.raises(
        ConfigError, match=r"two settings called 'precision', of sampling and of optim; write sampling=\{'precision"
    ):
        bf.grpo(precision="bfloat16")
    assert bf.grpo(optim={"precision": "bfloat16"}).optim.precision == "bfloat16"
    with pytest.raises(ConfigError, match="unknown setting 'kl_targt'; did you mean 'kl_target'"):
        bf.ppo(kl_targt=3.0)
    with pytest.raises(ConfigError, match=r"'optim.learning_rate' must be at least 0"):
        bf.ppo(learning_rate=-1)
    with pytest.raises(ConfigError, match="unknown setting 'epoch'; did you mean 'epochs'"):
        bf.fit_reward(tiny(), [], epoch=1)


def test_rate_plays_when_given_prompts_and_reads_the_store_otherwise(store: Any) -> None:
    policies = [tiny(0, name="a"), tiny(1, name="b")]
    waiting = bf.rate(policies, store, PROMPTS, **SHORT)
    assert [rating.rating for rating in waiting.ratings] == [None, None]
    assert all(query.purpose == "arena" for query in store.unanswered(purpose="arena"))
    table = bf.rate(policies, store, PROMPTS, oracle(), anchor="a", **SHORT)
    assert {rating.policy: rating.matches for rating in table.ratings} == {"a": 9, "b": 9}
    assert bf.rate(policies, store, anchor="a").ratings == table.ratings
    assert "95 % interval" in str(table)
    assert store.comparisons() == [], "what the arena asked is not trained on"
    with pytest.raises(UserError, match="two policies are called 'a'"):
        bf.rate([policies[0], tiny(2, name="a")], store, PROMPTS)


def test_an_algorithm_by_name_is_changed_by_name() -> None:
    from backflip.algorithms import ALGORITHMS

    changed = bf.algorithm("r1-zero", steps=3, max_new_tokens=64)
    published = ALGORITHMS["r1-zero"][0]
    assert (changed.steps, changed.sampling.max_new_tokens) == (3, 64)
    assert (changed.kl_coef, changed.reference_every) == (published.kl_coef, published.reference_every) == (0.001, 400)
    with pytest.raises(ConfigError, match="did you mean 'gspo'"):
        bf.algorithm("gsp")


def test_pretraining_text_goes_along(tmp_path: Path) -> None:
    settings = bf.ppo(steps=1, batch_size=4, ppo_epochs=1, max_new_tokens=4, ptx_coef=1.0, ptx_ratio=1.0)
    made = bf.improve(tiny(), PROMPTS, vowels, settings, tmp_path / "run", pretraining=TEXTS, quiet=True)
    assert made.metrics["loss/ptx"] > 1
