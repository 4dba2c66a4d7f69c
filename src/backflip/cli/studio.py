"""`backflip studio`: the pages on which people teach."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "Open the studio: people compare on a page, and see runs, ratings and agreement."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The store, the runs, and where to listen."""
    parser.add_argument(
        "store", metavar="STORE", nargs="?", default="feedback.db",
        help="The store with the questions: a file, made if it is not there, or postgresql://… [feedback.db].",
    )  # fmt: skip
    parser.add_argument("--runs", metavar="DIR", default="runs", help="The folder whose runs are shown [runs].")
    parser.add_argument("--port", type=int, default=8042, metavar="N", help="The port to listen on; 0 takes a free one [8042].")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="The address to listen on [127.0.0.1].")
    parser.add_argument(
        "--host-name",
        action="append",
        default=[],
        metavar="NAME",
        help="A name by which browsers reach the studio, besides localhost.",
    )
    parser.add_argument("--certificate", metavar="FILE", help="The certificate with which to encrypt (PEM).")
    parser.add_argument("--key", metavar="FILE", help="The certificate's private key (PEM).")
    parser.add_argument(
        "--behind-proxy", action="store_true", help="Something on this machine that encrypts stands in front of the studio."
    )
    parser.add_argument("--no-browser", action="store_true", help="Do not open a browser.")


def run(args: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Raises ConfigError for flags that do not go together."""
    from backflip.errors import ConfigError
    from backflip.web.serve import serve

    if (args.certificate is None) != (args.key is None):
        raise ConfigError("--certificate and --key go together")
    serve(
        args.store, runs=Path(args.runs), host=args.host, port=args.port, names=tuple(args.host_name),
        browser=not args.no_browser, certificate=(args.certificate, args.key) if args.certificate else None,
        behind_proxy=args.behind_proxy,
    )  # fmt: skip
    return 0
