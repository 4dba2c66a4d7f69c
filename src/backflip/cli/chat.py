"""`backflip chat POLICY`: talk with a policy in the terminal, or have a program talk with it line by line.

With --json each line on stdin is a request and each line on stdout its answer:

    {"id": "1", "messages": [{"role": "user", "content": "Hi"}], "max_new_tokens": 64, "temperature": 0.7}
    {"id": "1", "text": "Hello!", "seconds": 0.8, "forgotten": 0}    or    {"id": "1", "error": "…"}
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from typing import TYPE_CHECKING, Any, TextIO

from backflip.config import add_flags, from_flags
from backflip.errors import BackflipError, DataError
from backflip.settings import Sampling

if TYPE_CHECKING:
    from backflip.records import Message
    from backflip.rollout.talk import Talker

HELP = "Talk with a policy in the terminal."
SAMPLING = Sampling(temperature=0.7, max_new_tokens=256)
FIELDS = {"id", "messages", "max_new_tokens", "temperature"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The policy, who talks with it, and how it samples."""
    parser.add_argument("policy", metavar="POLICY", help="The model folder or name.")
    parser.add_argument("--json", action="store_true", help="Read requests and write answers as JSON lines, for programs.")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="Root of all randomness. [0]")
    add_flags(parser, Sampling, SAMPLING)


def run(args: argparse.Namespace) -> int:
    """Talk until /quit or the end of the input."""
    settings = from_flags(Sampling, args, base=SAMPLING)
    answers = sys.stdout
    # A library that prints something must not end up among the answers that a program reads.
    with contextlib.redirect_stdout(sys.stderr) if args.json else contextlib.nullcontext():
        from backflip.policies import load_policy
        from backflip.rollout.talk import Talker
        from backflip.seeds import Seeds
        from backflip.train.arithmetic import fast_matmul

        talker = Talker(load_policy(args.policy), settings, seeds=Seeds(args.seed))
        with fast_matmul(None):
            if args.json:
                serve(talker, sys.stdin, answers)
            else:
                talk(talker)
    return 0


def serve(talker: Talker, requests: TextIO, answers: TextIO) -> None:
    """Answer requests one by one until there are no more; a bad one is answered with what is wrong with it."""
    for line in requests:
        if line.strip():
            print(json.dumps(_answer(talker, line), ensure_ascii=False), file=answers, flush=True)


def talk(talker: Talker) -> None:
    """A conversation in the terminal: /new starts another, /quit ends."""
    from rich.console import Console
    from rich.text import Text

    from backflip.records import Message

    console, said = Console(highlight=False), list[Message]()
    console.print(Text("/new starts another conversation, /quit ends." + ("" if talker.template else f" {UNTAUGHT}"), "dim"))
    while True:
        try:
            text = console.input(Text("you > ", "bold"))
        except EOFError:
            console.print()
            return
        if text.strip() == "/quit":
            return
        if text.strip() == "/new":
            said.clear()
        elif text.strip():
            said.append(Message("user", text))
            try:
                reply = talker.reply(said)
            except DataError as problem:
                said.pop()
                console.print(Text(str(problem), "red"))
                continue
            said.append(Message("assistant", reply.text))
            left_out = f", the first {reply.forgotten} messages left out" if reply.forgotten else ""
            console.print(Text(reply.text), Text(f"({reply.seconds:.1f} s{left_out})", "dim"), sep="\n")


UNTAUGHT = "This policy has no chat template: it goes on writing where you stop."


def _answer(talker: Talker, line: str) -> dict[str, Any]:
    id: Any = None
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise DataError("a request is a JSON object")
        id = request.get("id")
        if set(request) - FIELDS:
            raise DataError(f"a request has no field {min(set(request) - FIELDS)!r}; it has {', '.join(sorted(FIELDS))}")
        reply = talker.reply(_messages(request.get("messages")), **_settings(request))
    except json.JSONDecodeError as problem:
        return {"id": id, "error": f"this line is no JSON: {problem}"}
    except BackflipError as problem:
        return {"id": id, "error": str(problem)}
    except (RuntimeError, MemoryError, RecursionError) as problem:  # a device out of memory; the next request may be smaller
        return {
            "id": id,
            "error": f"the policy failed: {str(problem).splitlines()[0] if str(problem) else type(problem).__name__}",
        }
    return {"id": id, "text": reply.text, "seconds": round(reply.seconds, 3), "forgotten": reply.forgotten}


def _messages(given: Any) -> list[Message]:
    from backflip.records import Message

    if not isinstance(given, list):
        raise DataError("a request needs messages, a list of objects with role and content")
    messages = []
    for each in given:
        if not isinstance(each, dict) or set(each) != {"role", "content"} or not all(isinstance(x, str) for x in each.values()):
            raise DataError("a message is an object with role and content, both texts")
        messages.append(Message(**each))
    return messages


def _settings(request: dict[str, Any]) -> dict[str, Any]:
    tokens, temperature = request.get("max_new_tokens"), request.get("temperature")
    if tokens is not None and (type(tokens) is not int or tokens < 1):
        raise DataError(f"max_new_tokens is a whole number from 1, not {tokens!r}")
    if temperature is not None and (type(temperature) not in (int, float) or not 0 <= temperature <= 100):
        raise DataError(f"temperature is a number from 0, not {temperature!r}")
    return {"max_new_tokens": tokens, "temperature": None if temperature is None else float(temperature)}
