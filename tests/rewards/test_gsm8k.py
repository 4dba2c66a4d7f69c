"""GSM8K from its file to the grade: rows, chat template, answers; and what it says of other people's verdicts.

`python -m pytest -s tests/rewards/test_gsm8k.py` prints the figures of docs/rewards.md.
"""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_models import tokenizer

from backflip.errors import DataError
from backflip.feedback.readers import read_demonstrations, read_prompts
from backflip.policies.chat import as_chat, render
from backflip.records import Message, Prompt
from backflip.rewards.maths import MathAnswer, NumberAnswer
from backflip.rewards.steps import Calculations
from backflip.rewards.weighted import judge

ROW = {"question": "Tom has 3 apples and eats 1. How many are left?", "answer": "3 - 1 = <<3-1=2>>2 apples.\n#### 2"}
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """A file of one GSM8K row."""
    path = tmp_path / "sums.jsonl"
    path.write_text(json.dumps(ROW) + "\n", encoding="utf-8")
    return path


def test_rows_are_read_with_their_solution_as_a_column(rows: Path) -> None:
    [prompt] = read_prompts(rows)
    assert prompt == Prompt(ROW["question"], {"answer": ROW["answer"]})
    assert read_prompts(rows, column="question") == [prompt]
    [shown] = read_demonstrations(rows)
    assert (shown.prompt.text, shown.completion) == (ROW["question"], ROW["answer"])
    with pytest.raises(DataError, match="no column 'task'; found 'question', 'answer'"):
        read_prompts(rows, column="task")


def test_the_question_is_rendered_by_the_chat_template(rows: Path) -> None:
    [prompt] = read_prompts(rows)
    asked = as_chat(prompt, "Answer in <answer> tags.")
    assert asked.messages == (Message("system", "Answer in <answer> tags."), Message("user", ROW["question"]))
    assert asked.columns == prompt.columns
    assert as_chat(asked) == asked
    words = copy.deepcopy(tokenizer())
    words.chat_template = TEMPLATE
    expected = f"<|system|>Answer in <answer> tags.\n<|user|>{ROW['question']}\n<|assistant|>"
    assert words.decode(render(words, asked)) == expected
    assert words.decode(render(words, prompt)) == ROW["question"], "text is tokenised as it stands"


def test_the_answers_to_a_conversation_are_graded(rows: Path) -> None:
    [prompt] = [as_chat(p) for p in read_prompts(rows)]
    judged = judge(NumberAnswer(), [prompt] * 3, ["<answer>2</answer>", "it is 2.", "#### 3"])
    assert judged.scores == [1.0, 1.0, 0.0]


WAYS: dict[str, Callable[[str], str]] = {
    "the solution itself": lambda text: text,
    "boxed after thinking": lambda text: "<think>{}</think>So $\\boxed{{{}}}$.".format(*text.split("\n#### ")),
    "in tags": lambda text: "<think>{}</think><answer>${}.00</answer>".format(*text.split("\n#### ")),
    "announced": lambda text: "{}\nThe answer is ${} dollars.".format(*text.split("\n#### ")),
    "last number": lambda text: text.replace("#### ", ""),
}


@pytest.mark.realdata
@pytest.mark.parametrize("way", WAYS)
def test_reference_solutions_are_right(shared_data: Path, way: str) -> None:
    """The bar of the acceptance is 99.5 % of 7,473; written in other ways than the file's, every tenth."""
    prompts = read_prompts(shared_data / "gsm8k_train.jsonl.gz")
    assert len(prompts) == 7473
    prompts = prompts if way == "the solution itself" else prompts[::10]
    texts = [WAYS[way](p.columns["answer"]) for p in prompts]
    for reward in (NumberAnswer(), MathAnswer()):
        right = sum(judge(reward, prompts, texts).scores)
        print(f"reference solutions, {way}: {type(reward).__name__} says right to {right:g} of {len(texts)}")
        assert right >= 0.995 * len(texts)


@pytest.mark.realdata
def test_the_solution_of_another_problem_is_right_by_chance_only(shared_data: Path) -> None:
    prompts = read_prompts(shared_data / "gsm8k_train.jsonl.gz")
    texts = [p.columns["answer"] for p in prompts]
    share = sum(judge(NumberAnswer(), prompts, texts[-1:] + texts[:-1]).scores) / len(texts)
    print(f"solutions of the problem before: {share:.2%} right")
    assert share < 0.02


@pytest.mark.realdata
@pytest.mark.parametrize("reward", [NumberAnswer(), MathAnswer()], ids=["number", "math"])
def test_verdicts_on_model_solutions_agree(shared_data: Path, reward: Any) -> None:
    """Four models' solutions with `is_correct`, all of them; the bar is 99 %."""
    with gzip.open(shared_data / "gsm8k_model_solutions.jsonl.gz", "rt", encoding="utf-8") as lines:
        problems = [json.loads(line) for line in lines]
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    said = [
        (p["question"], p["ground_truth"], p[model]["solution"], p[model]["is_correct"]) for p in problems for model in models
    ]
    questions, golds, solutions, verdicts = map(list, zip(*said, strict=True))
    grades = reward(questions, solutions, answer=golds)
    agree = [bool(grade) == verdict for grade, verdict in zip(grades, verdicts, strict=True)]
    right = [a for a, verdict in zip(agree, verdicts, strict=True) if verdict]
    wrong = [a for a, verdict in zip(agree, verdicts, strict=True) if not verdict]
    name = type(reward).__name__
    print(f"model solutions, {name}: agrees on {sum(right)} of {len(right)} right, {sum(wrong)} of {len(wrong)} wrong")
    for same, gold, solution, verdict in zip(agree, golds, solutions, verdicts, strict=True):
        if not same:
            print(f"  is_correct {verdict}: reference {gold[-30:]!r}, solution {solution[-60:]!r}")
    assert len(right) == 2001
    assert len(wrong) == 3275
    assert sum(right) >= 0.99 * len(right)
    assert sum(wrong) >= 0.99 * len(wrong)


@pytest.mark.realdata
def test_steps_of_the_reference_solutions_are_calculated_well(shared_data: Path) -> None:
    prompts = read_prompts(shared_data / "gsm8k_train.jsonl.gz")[::4]
    judged = judge(Calculations(), prompts, [p.columns["answer"] + "\n2 + 2 = 4" for p in prompts])
    share = sum(score == 1.0 for score in judged.scores) / len(prompts)
    print(f"reference solutions whose every stated equation is true: {share:.2%}")
    assert share >= 0.98
