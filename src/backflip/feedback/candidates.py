"""What might be asked: completions by prompt, as `backflip sample` writes them or as questions. No torch."""

from __future__ import annotations

from pathlib import Path

from backflip.errors import DataError
from backflip.feedback.comparison_rows import prompt_of
from backflip.feedback.readers import queries_of
from backflip.feedback.rows import load_rows, missing_column, text_of
from backflip.records import Prompt, Query


def read_candidates(path: str | Path) -> list[Query]:
    """All completions of each prompt as one question, of which any two may be asked.

        prompt, completion [, policy]       one completion, as `backflip sample --output FILE` writes it
        prompt, completions [, policies]    several

    Rows on one prompt belong together wherever they stand; prompts with one completion only are left out. Raises DataError
    naming the row, and where no prompt has two.
    """
    prompts: dict[str, Prompt] = {}
    texts: dict[str, list[tuple[str, str]]] = {}
    for row in load_rows(path):
        if "completion" in row.values:
            if "prompt" not in row.values:
                raise missing_column(row, "prompt", "prompt and completion, or prompt and completions")
            # The other columns of a prompt are no part of a question: the same prompt comes from many files.
            prompt, policy = prompt_of(row), row.values.get("policy", "")
            found = [(text_of(row, "completion"), policy if isinstance(policy, str) else "")]
        else:
            asked = queries_of(row)  # none in a row of an export that holds an answer
            if not asked:
                continue
            [query] = asked
            prompt = query.prompt
            found = list(zip(query.completions, query.policies or ("",) * len(query.completions), strict=True))
        prompts.setdefault(prompt.id, prompt)
        texts.setdefault(prompt.id, []).extend(found)
    made = []
    for key, pairs in texts.items():
        if len(pairs) > 1:
            completions, policies = zip(*pairs, strict=True)
            made.append(Query(prompts[key], completions, policies if any(policies) else ()))
    if not made:
        raise DataError(f"{path} holds no prompt with two completions to compare")
    return made
