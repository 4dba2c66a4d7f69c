"""`backflip label`: a person compares completions in the terminal."""

from __future__ import annotations

import argparse
import getpass

HELP = "Compare completions in the terminal; every answer is saved at once."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The store, who answers, and more questions if wanted."""
    parser.add_argument("store", metavar="STORE", help="The store with the questions, such as feedback.db.")
    parser.add_argument("--annotator", metavar="NAME", help="Whose answers these are [your user name].")
    parser.add_argument(
        "--queries",
        metavar="FILE",
        help="First add the questions of this file (rows of prompt and completions); makes the store if need be.",
    )


def run(args: argparse.Namespace) -> int:
    """Label until all is answered or the person stops. Raises DataError when there is nothing to label."""
    from backflip.errors import DataError, Interrupted
    from backflip.feedback.readers import read_queries
    from backflip.feedback.session import Session
    from backflip.feedback.terminal import label
    from backflip.store import Store
    from backflip.store.dialects import place_of

    questions = read_queries(args.queries) if args.queries else []
    place = place_of(args.store)
    if not questions and not place.exists():
        raise DataError(f"there is no store at {place.name}; give questions for a new one with --queries FILE")
    with Store(args.store) as store:
        store.add_queries(questions)
        session = Session(store, args.annotator or _user())
        if not session.total:
            raise DataError(f"store {store.name} holds no questions yet; give some with --queries FILE")
        try:
            label(session)
        except KeyboardInterrupt as problem:
            raise Interrupted("stopped; every answer so far is saved") from problem
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a process without a user name, as in some containers
        return "me"
