"""`backflip report FOLDER`: set a run's report as one HTML page."""

from __future__ import annotations

import argparse

HELP = "Write report.html for a run folder."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The folder, and whether to show the page."""
    parser.add_argument("folder", metavar="FOLDER", help="A run folder, or a folder that holds a report.json.")
    parser.add_argument("--open", action="store_true", help="Show the page in the web browser.")


def run(args: argparse.Namespace) -> int:
    """Write the page, print its path."""
    import webbrowser

    from backflip.runs.report import write_report

    page = write_report(args.folder)
    print(page)
    if args.open and not webbrowser.open(page.resolve().as_uri()):
        print("no web browser could be started; open the file yourself")
    return 0
