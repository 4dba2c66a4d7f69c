"""`backflip chat`: a conversation in the terminal, and line by line with a program."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SHORT = ("--max-new-tokens", 4)


@pytest.fixture
def ask(kit: Any, backflip: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`ask(*requests, flags=())`: the answers of one process to requests, or to lines given as text."""

    def send(*requests: Any, policy: str = kit.policy, flags: tuple[Any, ...] = SHORT) -> list[dict[str, Any]]:
        lines = [each if isinstance(each, str) else json.dumps(each) for each in requests]
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(line + "\n" for line in lines)))
        said = backflip("chat", policy, "--json", *flags)
        assert said.code == 0, said.err
        return [json.loads(line) for line in said.out.splitlines()]

    return send


def say(*texts: str, id: Any = "1", **more: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    return {"id": id, "messages": [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)], **more}


def test_a_line_for_a_line(ask: Any) -> None:
    first, second = ask(say("the film", id="a"), "", say("the film", "was good", "why", id=["b", 2]))
    assert (first["id"], second["id"]) == ("a", ["b", 2])
    assert set(first) == {"id", "text", "seconds", "forgotten"}
    assert first["text"]
    assert first["seconds"] > 0
    assert first["forgotten"] == 0


def test_the_seed_decides_and_each_answer_has_its_own_draw(ask: Any) -> None:
    twice = [answer["text"] for answer in ask(say("the film"), say("the film"), flags=("--max-new-tokens", 12))]
    assert twice[0] != twice[1]
    assert [answer["text"] for answer in ask(say("the film"), say("the film"), flags=("--max-new-tokens", 12))] == twice
    other = ask(say("the film"), flags=("--max-new-tokens", 12, "--seed", 1))
    assert other[0]["text"] != twice[0]


def test_a_request_sets_length_and_temperature(ask: Any) -> None:
    greedy = [answer["text"] for answer in ask(*(say("the film", temperature=0, max_new_tokens=10) for _ in range(3)))]
    assert len(set(greedy)) == 1
    short, long = ask(say("the film", temperature=0, max_new_tokens=2), say("the film", temperature=0, max_new_tokens=10))
    assert long["text"] == greedy[0]
    assert long["text"].startswith(short["text"])
    assert len(short["text"]) < len(long["text"])


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        ("{", "this line is no JSON"),
        ("[]", "a request is a JSON object"),
        ({"id": "1"}, "needs messages"),
        ({"id": "1", "messages": []}, "nothing to answer"),
        ({"id": "1", "messages": ["hi"]}, "an object with role and content"),
        ({"id": "1", "messages": [{"role": "user", "content": 3}]}, "both texts"),
        ({"id": "1", "messages": [{"role": "tool", "content": "x"}]}, "no role 'tool'"),
        (say("x", stream=True), "no field 'stream'"),
        (say("x", max_new_tokens=0), "max_new_tokens is a whole number"),
        (say("x", max_new_tokens=True), "max_new_tokens is a whole number"),
        (say("x", temperature=-1), "temperature is a number"),
        (say("word " * 300), "fills the policy's whole context"),
    ],
)
def test_a_bad_request_is_answered_and_the_next_one_works(ask: Any, request_: Any, problem: str) -> None:
    bad, good = ask(request_, say("the film", id="next"))
    assert set(bad) == {"id", "error"}
    assert problem in bad["error"]
    assert "\n" not in bad["error"]
    assert bad["id"] == (request_.get("id") if isinstance(request_, dict) else None)
    assert good["id"] == "next"
    assert "text" in good


def test_a_long_conversation_forgets_its_beginning(ask: Any) -> None:
    turns = [f"the film was good {i}" for i in range(9)]
    [answer] = ask(say(*turns, max_new_tokens=4))
    assert 0 < answer["forgotten"] < 9
    [whole] = ask(say("a", max_new_tokens=4000))
    assert whole["forgotten"] == 0


def test_what_the_policy_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.tiny_models import tiny

    from backflip.policies.chat import PLAIN
    from backflip.records import Message, Prompt
    from backflip.rollout import talk
    from backflip.seeds import Seeds
    from backflip.settings import Sampling

    read: list[tuple[Prompt, Sampling]] = []
    real = talk.generate_samples

    def generate(policy: Any, prompts: Any, **more: Any) -> Any:
        read.append((prompts[0], more["settings"]))
        return real(policy, prompts, **more)

    monkeypatch.setattr(talk, "generate_samples", generate)
    said = [Message("system", "S"), Message("user", "the film "), Message("assistant", "was"), Message("user", " good")]
    base = tiny()
    base.tokenizer.chat_template = None
    talker = talk.Talker(base, Sampling(max_new_tokens=4), seeds=Seeds(0))
    for _ in range(2):  # the second time too, whatever rendering has done to the tokenizer
        talker.reply(said)
        assert read[-1][0].text == "Sthe film was good", "a base model goes on writing"
    taught = tiny()
    taught.tokenizer.chat_template = PLAIN
    try:
        talk.Talker(taught, Sampling(max_new_tokens=4), seeds=Seeds(0)).reply(said)
    finally:
        taught.tokenizer.chat_template = None  # the tests' tokenizer is one for all
    assert read[-1][0].messages == tuple(said)
    assert read[-1][1].stop == ("\n\nHuman:",), "it does not play our part"
    long = [Message("system", "S"), *(Message("user", f"the film was good {i}") for i in range(20))]
    assert talker.reply(long).forgotten > 10
    assert str(read[-1][0].text).startswith("Sthe film was good 1"), "what the system said stays"


def test_the_terminal(kit: Any, backflip: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    typed = "the [bold]film[/bold]\n\n/new\nthe plot\n" + "word " * 300 + "\n/quit\nnever read\n"
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    said = backflip("chat", kit.policy, *SHORT)
    assert (said.code, said.err) == (0, "")
    assert said.out.count("you > ") == 6
    assert said.out.count(" s)") == 2
    assert "fills the policy's whole context" in said.out
    monkeypatch.setattr(sys, "stdin", io.StringIO("the film\n"))
    assert backflip("chat", kit.policy, *SHORT).code == 0, "the end of the input is the end"


def test_what_cannot_be_loaded_is_one_sentence(backflip: Any, tmp_path: Path) -> None:
    said = backflip("chat", tmp_path / "nothing", "--json")
    assert (said.code, said.out, said.err.count("\n")) == (2, "", 1)


def test_only_answers_are_on_stdout(kit: Any) -> None:
    code = (
        "import sys; from backflip.cli import main; import backflip.policies as p; real = p.load_policy\n"
        "p.load_policy = lambda *a, **k: (print('noise'), real(*a, **k))[1]\n"
        f"sys.exit(main.main(['chat', {kit.policy!r}, '--json', '--max-new-tokens', '2']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(say("the film")) + "\n", capture_output=True, text=True,
        timeout=120, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == ["1"]
    assert "noise" in done.stderr
