"""What a job reads, what is kept from training, and how long prompts are cut."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny
from tests.tiny_rounds import loop_job, recorded_job

from backflip.errors import ConfigError, DataError
from backflip.job_settings import RoundsJob
from backflip.records import Message, Prompt
from backflip.rounds.material import Fitter, Material, Overlong, read_material, shorten

TURNS = "\n\nHuman: Hi there\n\nAssistant: Yes?\n\nHuman: Go on please\n\nAssistant:"


def test_nothing_of_the_arena_is_learned_from(hh_file: Path, tmp_path: Path) -> None:
    material = read_material(recorded_job(hh_file, tmp_path))
    arena = {prompt.text for prompt in material.arena_prompts}
    assert len(arena) == 5
    learned = [
        *(p.text for p in material.prompts),
        *(p.text for p, _ in material.demonstrations),
        *(p.text for p, _ in material.documents),
        *(c.prompt.text for c in material.recorded),
    ]
    assert not arena & set(learned)
    assert {c.prompt.text for c in material.fresh} == arena
    assert len(material.recorded) == len(material.demonstrations) == 35
    assert len(material.documents) == 70  # the preferred reply, which is a demonstration too, counts once


def test_the_last_different_prompts_go_to_the_arena(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ["a", "b", "a", "c", "b", "d", "e", "f", "g"]))
    material = read_material(loop_job(Path("any"), path, tmp_path / "run"))
    assert [p.text for p in material.prompts] == ["a", "b"]
    assert [p.text for p in material.arena_prompts] == ["c", "d", "e", "f", "g"]
    assert (material.recorded, material.demonstrations, material.fresh) == ([], [], [])


def test_texts_take_the_place_of_dialogues(hh_file: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("One text.\n\nAnother text.\n")
    material = read_material(recorded_job(hh_file, tmp_path / "run", texts=str(tmp_path / "texts.txt")))
    assert material.documents == [(Prompt(""), "One text."), (Prompt(""), "Another text.")]


def test_only_the_first_rows(hh_file: Path, tmp_path: Path) -> None:
    material = read_material(recorded_job(hh_file, tmp_path, max_rows=12))
    assert (len(material.recorded), len(material.fresh), len(material.demonstrations)) == (7, 5, 7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"comparisons": None}, "needs prompts"),
        ({"policy": "tiny", "data": "x", "comparisons": None, "demonstrations": None}, "made from the job's data"),
        ({"comparisons": None, "data": "x"}, "recorded comparisons: give --comparisons"),
        ({"labeler": "recorded", "rounds": 2}, "one round, not 2"),
        ({"labeler": "recorded", "sentinel": 0.0}, "needs a sentinel"),
        ({"heads": 5}, "not a multiple of twice tiny.heads"),
    ],
)
def test_settings_that_do_not_fit_together(changes: dict[str, object], said: str, hh_file: Path, tmp_path: Path) -> None:
    job = recorded_job(hh_file, tmp_path)
    train = {name: changes.pop(name) for name in ("rounds", "sentinel") if name in changes}
    tiny_size = {name: changes.pop(name) for name in ("heads",) if name in changes}
    job = dataclasses.replace(
        job,
        train=dataclasses.replace(job.train, **train),
        tiny=dataclasses.replace(job.tiny, **tiny_size),
        **changes,
    )
    with pytest.raises(ConfigError, match=said):
        read_material(job)


def test_too_few_prompts(prompts_file: Path, hh_file: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds 5 different prompts and 5 are kept"):
        read_material(loop_job(Path("any"), prompts_file, tmp_path, max_rows=5))
    job = recorded_job(hh_file, tmp_path)
    arena_only = tmp_path / "arena.jsonl"
    arena_only.write_text(hh_file.read_text().splitlines()[-1] + "\n")
    with pytest.raises(DataError, match="every demonstration"):
        read_material(dataclasses.replace(job, demonstrations=str(arena_only)))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (45, "\n\nHuman: Go on please\n\nAssistant:"),
        (20, "please\n\nAssistant:"),
        (9, None),
    ],
)
def test_a_dialogue_keeps_its_last_turns(limit: int, expected: str | None) -> None:
    def fits(prompt: Prompt) -> bool:
        return len(prompt.text) <= limit

    if expected is None:
        with pytest.raises(DataError, match="not even the last word"):
            shorten(Prompt(TURNS, {"a": 1}), fits)
    else:
        assert shorten(Prompt(TURNS, {"a": 1}), fits) == Prompt(expected, {"a": 1})


def test_a_conversation_keeps_its_system_message() -> None:
    system, *rest = (
        Message("system", "Be kind."),
        Message("user", "one two three"),
        Message("assistant", "four"),
        Message("user", "five six seven eight"),
    )
    prompt = Prompt((system, *rest))

    def words(p: Prompt) -> int:
        return sum(len(m.content.split()) for m in p.messages)

    assert shorten(prompt, lambda p: words(p) <= 7).messages == (system, rest[2])
    assert shorten(prompt, lambda p: words(p) <= 4).messages == (system, Message("user", "seven eight"))


@given(st.lists(st.text(alphabet="ab \n.", max_size=12), min_size=1, max_size=6), st.integers(1, 40))
def test_what_is_left_fits_and_is_the_end(turns: list[str], limit: int) -> None:
    text = "".join(f"\n\nHuman: {turn}\n\nAssistant:" for turn in turns)
    try:
        cut = shorten(Prompt(text), lambda p: len(p.text) <= limit).text
    except DataError:
        assert limit < len("Assistant:")
    else:
        assert isinstance(cut, str)
        assert len(cut) <= limit
        assert text.endswith(cut)


@pytest.mark.parametrize("overlong", ["refuse", "truncate", "drop"])
def test_long_prompts_are_refused_cut_or_dropped_everywhere(overlong: Overlong, hh_file: Path, tmp_path: Path) -> None:
    material = read_material(recorded_job(hh_file, tmp_path))
    policy = tiny()
    lengths = sorted({len(policy.encode(p)) for p in material.prompts})
    limit = lengths[len(lengths) // 2 - 1]
    fitter = Fitter(policy, limit, overlong)
    if overlong == "refuse":
        with pytest.raises(DataError, match=f"at most {limit} fit"):
            fitter.fit(material)
        return
    cut = fitter.fit(material)
    everything = [*cut.prompts, *cut.arena_prompts, *(c.prompt for c in [*cut.recorded, *cut.fresh])]
    everything += [p for p, _ in cut.demonstrations]
    assert max(len(policy.encode(p)) for p in everything) <= limit
    kept = len(cut.recorded) == len(material.recorded)
    assert kept == (overlong == "truncate")
    assert cut.documents == material.documents


def test_dropping_everything_is_an_error() -> None:
    material = Material([Prompt("a b c d")], [Prompt("a b c d")], [], [], [], [])
    with pytest.raises(DataError, match="no prompt is left"):
        Fitter(tiny(), 1, "drop").fit(material)


def test_a_job_names_its_files() -> None:
    with pytest.raises(ConfigError, match="needs prompts"):
        read_material(RoundsJob(policy="any"))
