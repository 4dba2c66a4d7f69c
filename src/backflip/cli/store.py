"""`backflip store backup|verify|rebuild|restore`: look after a feedback store."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backflip.store.projections import Verified

HELP = "Look after a feedback store: backup, verify, rebuild, restore."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which file, and where to."""
    parser.add_argument(
        "action",
        choices=("backup", "verify", "rebuild", "restore"),
        help="'backup' copies a store, also while it is in use; 'verify' checks everything in one; 'rebuild' makes its "
        "verdicts again from its events; 'restore' makes a store from a copy.",
    )
    parser.add_argument(
        "store", metavar="STORE",
        help="The store, such as feedback.db or postgresql://user@host/database; for 'restore', the copy.",
    )  # fmt: skip
    parser.add_argument("--to", metavar="FILE", help="Where the copy goes; for 'restore', the store to make.")
    parser.add_argument(
        "--overwrite", action="store_true", help="Restore over a store that is there; the old one is kept beside it."
    )


def run(args: argparse.Namespace) -> int:
    """Do it and say what the store holds. Raises ConfigError for flags that do not go with the action."""
    from backflip.errors import ConfigError
    from backflip.store import Store
    from backflip.store.backup import backup, files, restore

    copies = args.action in ("backup", "restore")
    if copies != (args.to is not None):
        raise ConfigError(f"`backflip store {args.action}` {'needs --to FILE' if copies else 'takes no --to'}")
    if args.overwrite and args.action != "restore":
        raise ConfigError(f"`backflip store {args.action}` takes no --overwrite; only restore does")
    if args.action == "backup":
        print(f"{args.to}: {_told(backup(*files('backup', args.store, args.to)))}")
    elif args.action == "restore":
        found, kept = restore(*files("restore", args.store, args.to), overwrite=args.overwrite)
        print(f"{args.to}: {_told(found)}" + (f"; the old store is now {kept}" if kept else ""))
    elif args.action == "rebuild":
        Store(args.store, read_only=True).close()  # makes no new store where there is none
        with Store(args.store) as store:
            changed = store.rebuild()
            print(f"{store.name}: {'rebuilt; ' if changed else 'nothing to rebuild; '}{_told(store.verify())}")
    else:
        with Store(args.store, read_only=True) as store:
            print(f"{store.name}: {_told(store.verify())}")
    return 0


def _told(found: Verified) -> str:
    counts = f"{found.queries} queries, {found.verdicts} verdicts, {found.retractions} retractions, {found.events} events"
    return f"{counts}, all sound" + (f"; last hash {found.head}" if found.head else "")
