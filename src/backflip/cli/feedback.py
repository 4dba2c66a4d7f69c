"""`backflip feedback report|export|import|aggregate|next`: how good answers are, in and out, made one, and what to ask next."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from backflip.feedback.asking import Asked, Candidate, Left
    from backflip.feedback.figures import Agreement
    from backflip.feedback.habits import Effect
    from backflip.feedback.report import Overview
    from backflip.maths.cycles import Cycles
    from backflip.records import Query
    from backflip.runs.report_data import ReportData
    from backflip.store import Store

HELP = "Understand feedback: report, export, import, aggregate, next."
MOST_SHOWN = 40
ACTIONS = ("report", "export", "import", "aggregate", "next")
NEEDS = {"export": "to", "aggregate": "to", "next": "candidates"}
FLAGS = {
    "output": ("report",),
    "to": ("export", "aggregate"),
    "method": ("aggregate",),
    "comparisons": ("export",),
    "sides_are_policies": ("import",),
    **dict.fromkeys(("candidates", "reward", "rule", "n", "random_share", "per_prompt"), ("next",)),
}
DEFAULTS = {"method": "shares", "rule": "random", "n": 100, "random_share": 0.2, "per_prompt": 1}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, with which store, and the flags of each action."""
    from backflip.feedback.aggregate import METHODS
    from backflip.feedback.asking import RULES

    parser.add_argument(
        "action", choices=ACTIONS,
        help="'report' says how good the answers are; 'export' writes them; 'import' adds questions and answers from files; "
        "'aggregate' makes one belief of all answers to a question; 'next' chooses what to ask.",
    )  # fmt: skip
    parser.add_argument("store", metavar="STORE", help="The store, such as feedback.db; 'import' and 'next' make one if need be.")
    parser.add_argument("files", metavar="FILE", nargs="*", help="The files to import: JSON lines, JSON or CSV.")
    parser.add_argument("--purpose", default="train", metavar="TEXT", help="The questions meant: train, arena, … [train]")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="Root of all randomness. [0]")
    parser.add_argument("--output", metavar="FOLDER", help="report: also write report.html and feedback.json there.")
    parser.add_argument("--to", metavar="FILE", help="export, aggregate: the file to write.")
    parser.add_argument(
        "--comparisons", action="store_true", default=None, help="export: comparisons of this purpose, not the store as it is."
    )
    parser.add_argument(
        "--sides-are-policies", action="store_true", default=None,
        help="import: left and right name policies whose texts the file does not hold.",
    )  # fmt: skip
    parser.add_argument("--method", choices=METHODS, help="aggregate: how answers become one belief. [shares]")
    parser.add_argument(
        "--candidates", metavar="FILE", help="next: what might be asked, rows of prompt and completion, or completions."
    )
    parser.add_argument(
        "--reward", nargs="+", metavar="FOLDER", help="next: reward models; rules that look for disagreement need two or more."
    )
    parser.add_argument("--rule", choices=RULES, help="next: what makes a question worth asking. [random]")
    parser.add_argument("--n", type=int, metavar="N", help="next: how many questions. [100]")
    parser.add_argument(
        "--random-share", type=float, metavar="X", help="next: the share drawn at random, for honest measurement. [0.2]"
    )
    parser.add_argument("--per-prompt", type=int, metavar="N", help="next: most questions about one prompt. [1]")


def run(args: argparse.Namespace) -> int:
    """Do it. Raises ConfigError for flags that do not go with the action."""
    from backflip.errors import ConfigError

    for name, actions in FLAGS.items():
        if getattr(args, name) is not None and args.action not in actions:
            raise ConfigError(
                f"`backflip feedback {args.action}` takes no --{name.replace('_', '-')}; {' and '.join(actions)} do"
            )
        if getattr(args, name) is None:
            setattr(args, name, DEFAULTS.get(name))
    needed = NEEDS.get(args.action)
    if needed and getattr(args, needed) is None:
        raise ConfigError(f"`backflip feedback {args.action}` needs --{needed} FILE")
    if bool(args.files) != (args.action == "import"):
        raise ConfigError("give the files to import" if args.action == "import" else f"{args.action} takes no files")
    action: dict[str, Callable[[argparse.Namespace], None]] = {
        "report": report, "export": export, "import": import_files, "aggregate": aggregate_answers, "next": ask_next,
    }  # fmt: skip
    action[args.action](args)
    return 0


# ------------------------------------------------------------------------------------------------- report


def report(args: argparse.Namespace) -> None:
    """Print what the answers say of themselves, and write the page where asked to."""
    from backflip.feedback.report import overview
    from backflip.seeds import Seeds
    from backflip.store import Store

    with Store(args.store, read_only=True) as store:
        found = overview(store, purpose=args.purpose, seeds=Seeds(args.seed))
    _show(found)
    if args.output is not None:
        import json

        from backflip.runs.atomic import write_atomic
        from backflip.runs.report import write_report

        page = write_report(args.output, page_of(found, args.store))
        write_atomic(Path(args.output) / "feedback.json", json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n")
        print(page)


def figure_rows(found: Overview) -> list[tuple[str, str, str, str]]:
    """The figures of everybody: name, value, 95 % interval, and what it is of."""
    quality = found.quality
    figures = (
        ("Krippendorff's α, nominal", quality.alpha_nominal), ("Krippendorff's α, ordinal", quality.alpha_ordinal),
        ("Gwet's AC₁", quality.ac1), ("raw agreement", quality.raw),
    )  # fmt: skip
    rows = [(name, *_figure(figure)) for name, figure in figures]
    everybody = found.habits[0]
    sizes = f"{everybody.n:,} pairs"
    rows.append(("odds of the side shown first", *_effect(everybody.first), sizes))
    if everybody.longer.value is not None:
        rows.append((f"odds of a text longer by {everybody.typical:.0%}", *_effect(everybody.longer), sizes))
    if found.circles is not None:
        rows.append((f"circles among {found.circles_of}", *_circle(found.circles)))
    return rows


def labeler_rows(found: Overview) -> list[tuple[str, ...]]:
    """One row for each labeler, those with most answers first."""
    rows: list[tuple[str, ...]] = []
    own = {each.name: each for each in found.habits[1:]}
    for rater in sorted(found.quality.raters, key=lambda each: -each.n_answers):
        habit = own.get(rater.name)
        rows.append(
            (
                rater.name, f"{rater.n_answers:,}", _share(rater.consensus), _share(rater.gold), _share(rater.reliability),
                _share(rater.consistency), _share(rater.left), _share(rater.longer),
                "" if habit is None or habit.longer.value is None else " ".join(_effect(habit.longer)),
                "" if rater.median_ms.value is None else f"{rater.median_ms.value / 1000:.1f} s",
            )
        )  # fmt: skip
    return rows


FIGURES = ("figure", "value", "95 % interval", "of")
LABELERS = (
    "labeler", "answers", "with most others", "known answers", "reliability", "the same again", "first shown won", "longer won",
    "odds of the longer", "median time",
)  # fmt: skip


def _show(found: Overview) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False)
    console.print(
        f"{found.answers:,} answers and {found.skips:,} skips by {len(found.quality.raters):,} labelers to {found.answered:,} of "
        f"{found.questions:,} questions; {found.quality.n_overlapping:,} pairs were answered by two or more"
    )
    if found.asked:
        console.print("chosen by rule: " + ", ".join(f"{n:,} {rule}" for rule, n in found.asked.items()))
    console.print(_table("Everybody", FIGURES, figure_rows(found)))
    console.print(_table("Labelers", *_filled(LABELERS, labeler_rows(found)[:MOST_SHOWN])))
    if len(found.quality.raters) > MOST_SHOWN:
        console.print(f"… and {len(found.quality.raters) - MOST_SHOWN:,} more; --output FOLDER writes them all")
    for note in found.notes:
        console.print(Text(f"note: {note}"))


def _filled(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """The columns in which some row says something."""
    kept = [k for k in range(len(header)) if any(row[k] for row in rows)]
    return [header[k] for k in kept], [[row[k] for k in kept] for row in rows]


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left")
    for column in header:
        table.add_column(Text(column), overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def page_of(found: Overview, store: str) -> ReportData:
    """The same as a page."""
    from backflip.runs.report_data import Chart, Figure, ReportData, Series

    figures = [
        Figure(name, value, f"95 % interval {interval}" if interval else "", of)
        for name, value, interval, of in figure_rows(found)
    ]
    raters = [rater for rater in found.quality.raters if rater.consensus.value is not None]
    raters.sort(key=lambda rater: rater.consensus.value or 0.0)
    charts = []
    if raters:
        values = [[getattr(rater.consensus, name) for rater in raters] for name in ("value", "low", "high")]
        charts.append(
            Chart(
                "With most of the others", "labelers, from least to most", "share of answers",
                [Series("share", list(range(1, len(raters) + 1)), *values)],
                "How often each labeler gave the answer that most of the other people gave, with 95 % intervals.",
            )
        )  # fmt: skip
    rows = [
        ", ".join(f"{name} {value}" for name, value in zip(LABELERS, row, strict=True) if value) for row in labeler_rows(found)
    ]
    return ReportData(
        title="Feedback", summary=f"{found.answers:,} answers to {found.answered:,} of {found.questions:,} questions in {store}.",
        figures=figures, charts=charts, notes=[*found.notes, *rows],
    )  # fmt: skip


def _figure(figure: Agreement) -> tuple[str, str, str]:
    if figure.value is None:
        return "–", "", figure.why
    return f"{figure.value:.2f}", f"{figure.low:.2f} to {figure.high:.2f}", f"{figure.n:,} pairs answered twice or more"


def _effect(effect: Effect) -> tuple[str, str]:
    if effect.value is None or effect.low is None or effect.high is None:
        return "–", ""
    from math import exp

    return f"×{exp(effect.value):.2f}", f"×{exp(effect.low):.2f} to ×{exp(effect.high):.2f}"


def _circle(found: Cycles) -> tuple[str, str, str]:
    if found.share is None or found.expected is None:
        return "–", "", "no triple was compared whole"
    says = f"{found.cyclic:,} of {found.triples:,} triples; one scale gives {found.expected:.1%}, p = {found.p:.2g}; coins 25 %"
    return f"{found.share:.1%}", f"{found.low:.1%} to {found.high:.1%} by one scale", says


def _share(share: Any) -> str:
    return "" if share.value is None else f"{share.value:.0%} ({100 * share.low:.0f}–{share.high:.0%})"


# ------------------------------------------------------------------------------------------------- in and out


def export(args: argparse.Namespace) -> None:
    """Write the whole store, or the comparisons of one purpose, as JSON lines."""
    from backflip.store import Store

    with Store(args.store, read_only=True) as store:
        if not args.comparisons:
            print(f"{store.export_jsonl(args.to):,} lines in {args.to}")
            return
        rows = [comparison.to_json() for comparison in store.comparisons(purpose=args.purpose)]
    _write(args.to, rows)
    print(f"{len(rows):,} comparisons in {args.to}")


def import_files(args: argparse.Namespace) -> None:
    """Add what files hold, each whole or not at all, and say what was left out."""
    from backflip.feedback.votes import read_votes
    from backflip.store import Store
    from backflip.store.projects import Projects

    read = [
        (path, read_votes(path, purpose=args.purpose, sides_are_policies=bool(args.sides_are_policies))) for path in args.files
    ]
    with Store(args.store) as store:
        for path, votes in read:
            new = Projects(store).add_entries(votes.entries, by="backflip feedback import")
            print(f"{path}: {new:,} new of {len(votes.entries):,} questions and answers")
            for note in votes.notes:
                print(f"note: {note}")


def aggregate_answers(args: argparse.Namespace) -> None:
    """Write one comparison for each pair, in a file that `backflip reward` reads."""
    from backflip.feedback.aggregate import aggregate
    from backflip.store import Store

    with Store(args.store, read_only=True) as store:
        queries = {
            query.id: query for query in store.queries(args.purpose) if len(set(query.completions)) == len(query.completions)
        }
        found = aggregate(queries, store.verdicts(purpose=args.purpose), args.method)
    _write(args.to, found.rows())
    mean = sum(unit.entropy for unit in found.units) / len(found.units)
    print(f"{len(found.comparisons):,} comparisons by {args.method} in {args.to}; mean entropy of the answers {mean:.2f} nats")
    for name, value in sorted(found.reliability.items(), key=lambda each: each[1]):
        print(f"  {name}: reliability {value:.0%}")
    if not found.converged:
        print("note: the iteration was cut short before it came to rest")


def _write(path: str, rows: Sequence[dict[str, Any]]) -> None:
    import json

    from backflip.runs.atomic import write_atomic

    write_atomic(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


# ------------------------------------------------------------------------------------------------- next


def ask_next(args: argparse.Namespace) -> None:
    """Choose questions among the pairs of the candidates and file them in the store, with the rule noted there."""
    from backflip.errors import DataError
    from backflip.feedback.asking import Candidate, choose, pair_key
    from backflip.feedback.candidates import read_candidates
    from backflip.seeds import Seeds
    from backflip.store import Store

    rows = read_candidates(args.candidates)
    pairs = [(row, i, j) for row in rows for i in range(len(row.completions)) for j in range(i)]
    candidates = [Candidate(row.prompt.id, row.completions[j], row.completions[i]) for row, i, j in pairs]
    with Store(args.store) as store:
        asked = [query for query in store.queries(args.purpose) if len(query.completions) == 2]
        before = frozenset(pair_key(Candidate(query.prompt.id, *query.completions)) for query in asked)
        worth = _worth(args, [(row, j, i) for row, i, j in pairs], asked)
        chosen, left = choose(
            candidates, worth, budget=args.n, seeds=Seeds(args.seed), random_share=args.random_share, per_group=args.per_prompt,
            before=before,
        )  # fmt: skip
        if not chosen:
            raise DataError(f"{args.candidates} holds nothing new to ask; {_left_out(left)}")
        _file(store, args, [(each, candidates[each.index], pairs[each.index]) for each in chosen])
        place = store.name
    random = sum(each.random for each in chosen)
    print(f"{len(chosen):,} questions in {place}: {len(chosen) - random:,} by {args.rule}, {random:,} at random")
    if sum(left):
        print(f"note: not considered: {_left_out(left)}")


def _left_out(left: Left) -> str:
    return f"{left.same_text:,} pairs of one text, {left.repeated:,} that stand there twice, {left.asked_before:,} asked before"


def _worth(args: argparse.Namespace, pairs: Sequence[tuple[Query, int, int]], asked: Sequence[Query]) -> Any:
    """What each pair is worth by the rule of the command line."""
    import numpy as np

    from backflip.errors import ConfigError
    from backflip.feedback.asking import newness, text_features, values

    if args.rule == "random":
        return np.zeros(len(pairs))
    if args.rule == "explore":
        new = text_features(["\n".join(sorted((row.completions[i], row.completions[j]))) for row, i, j in pairs])
        return newness(new, text_features(["\n".join(sorted(query.completions)) for query in asked]))
    if not args.reward:
        raise ConfigError(f"rule {args.rule!r} needs --reward FOLDER …")

    from backflip.rewards.learned import RewardModel

    scored = []
    for folder in args.reward:
        model = RewardModel.load(folder)
        sides = [model([row.prompt for row, *_ in pairs], [row.completions[place[k]] for row, *place in pairs]) for k in (0, 1)]
        scored.append(sides)
    left_KC, right_KC = (np.array([sides[k] for sides in scored]) for k in (0, 1))
    return values(args.rule, left_KC, right_KC)


def _file(store: Store, args: argparse.Namespace, chosen: Sequence[tuple[Asked, Candidate, tuple[Query, int, int]]]) -> None:
    from backflip.feedback.report import ASKED, asked_event
    from backflip.records import Query, content_id

    queries = []
    for each, _, (row, i, j) in chosen:
        order = (i, j) if each.swap else (j, i)
        policies = tuple(row.policies[k] for k in order) if row.policies else ()
        queries.append(Query(row.prompt, tuple(row.completions[k] for k in order), policies, args.purpose, row.form))
    store.add_queries(queries)
    rows = [(query.id, each.random, each.value) for query, (each, *_) in zip(queries, chosen, strict=True)]
    payload = asked_event(args.rule, rows, args.purpose)
    store.note(ASKED, "backflip feedback next", payload, key=f"asked:{content_id('asked', payload)}")
