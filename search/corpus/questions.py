"""The held-out questions of a run whose members are scored by their answers: prompts, answers and choices."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from shoal.cluster.storage import Store
from shoal.search.config.run import Run
from shoal.search.corpus.held_out import generator_of, sampled_rows
from shoal.search.corpus.manifest import Manifest, load_corpus
from shoal.search.errors import InputError
from shoal.search.tokenizers import open_tokenizer
from shoal.trainables.scores import Choice, ExactMatch, Question, Questions, TokenIds
from shoal.trainables.tokenizer import Tokenizer

ASKED_SPLITS = ("validation", "test")


class HeldExample(NamedTuple):
    """A held-out example, as ids, and the texts to choose from."""

    prompt: TokenIds
    answer: TokenIds  # without what ends it
    ending: TokenIds
    choices: Sequence[str]


def questions_of(run: Run, say: Callable[[str], None] = lambda line: None) -> Questions | None:
    """Return a run's questions, or None where a loss ranks its members; `say` hears what is left out.

    Raises InputError if a group has none, or an answer that is none of the choices.
    """
    if run.score.kind == "loss":
        return None
    settings: ExactMatch | Choice = run.score.build()
    manifest, tokenizer = load_corpus(run.data), open_tokenizer(run.data.tokenizer)
    ends = {tokenizer.end}
    by_split: dict[str, dict[str, tuple[Question, ...]]] = {split: {} for split in ASKED_SPLITS}
    for split in ASKED_SPLITS:
        for group in manifest.groups:
            found = examples_in(run, settings, manifest, group, split, tokenizer)
            ends |= {int(each.ending[0]) for each in found if each.ending.size}
            asked = [question(each, settings, tokenizer, group) for each in found]
            by_split[split][group] = that_fit(run, asked, f"{split} questions of {group}", say)
    steps, interval = run.training.steps, run.population.interval
    return Questions(settings, by_split, tokenizer.decode, frozenset(ends), interval, steps)


def that_fit(
    run: Run, asked: Sequence[Question], named: str, say: Callable[[str], None]
) -> tuple[Question, ...]:
    """Return the questions that fit a row with the longest of their choices."""
    most = run.data.sequence_length
    kept = [each for each in asked if len(each.prompt) + max(map(len, each.choices), default=0) <= most]
    if not kept:
        raise InputError(
            f"score: there are no whole {named} within data.sequence_length ({most}); raise it, or give the "
            f"group more examples."
        )
    if len(kept) < len(asked):
        say(f"score: {len(asked) - len(kept)} of {len(asked)} {named} do not fit data.sequence_length ({most})")
    return tuple(kept)


def question(each: HeldExample, settings: ExactMatch | Choice, tokenizer: Tokenizer, group: str) -> Question:
    """Return an example as a question."""
    answer = tokenizer.decode(each.answer)
    if isinstance(settings, ExactMatch):
        return Question(each.prompt, answer)
    known = [choice.strip() for choice in each.choices]
    if answer.strip() not in known:
        raise InputError(
            f"score.choices: must have every answer, but an answer of group {group} is {answer.strip()[:40]!r} "
            f"and the choices are {', '.join(known)[:200]}."
        )
    ids = tuple(np.concatenate([tokenizer.within(choice), each.ending]) for choice in each.choices)
    return Question(each.prompt, answer, ids, known.index(answer.strip()))


def examples_in(
    run: Run, settings: ExactMatch | Choice, manifest: Manifest, group: str, split: str, tokenizer: Tokenizer
) -> list[HeldExample]:
    """Return so many held-out examples of a group as are asked, the same ones for every member."""
    count = settings.questions or run.training.evaluation_rows
    store, choices = Store(run.data.corpus), getattr(settings, "choices", ())
    if (files := manifest.groups[group].splits[split].questions) and not choices:
        rows = pa.concat_tables([store.read_table(file) for file in files]).to_pylist()
        order = generator_of(manifest, group, split).permutation(len(rows))
        return [with_choices(rows[place], tokenizer) for place in order[:count]]
    found: list[HeldExample] = []
    # each row has an example at least, unless all of its answers are cut
    rows = sampled_rows(store, manifest, group, split, 4 * count)
    for row in range(len(rows["tokens"])):
        fields = {name: rows[name][row] for name in ("tokens", "mask", "segment")}
        found += examples_of(fields, tokenizer, choices)
        if len(found) >= count:
            break
    return found[:count]


def with_choices(stored: dict[str, Any], tokenizer: Tokenizer) -> HeldExample:
    prompt, answer = tokenizer.encode(stored["prompt"]), tokenizer.within(stored["answer"])
    return HeldExample(prompt, answer, np.array([tokenizer.end]), stored["choices"])


def examples_of(row: dict[str, Any], tokenizer: Tokenizer, choices: Sequence[str]) -> Iterator[HeldExample]:
    """Yield the examples of a row whose answers are whole; of a chat the last answer, after all before it."""
    for number in range(1, int(row["segment"].max()) + 1):
        there = np.flatnonzero(row["segment"] == number)
        tokens, mask = row["tokens"][there].astype(np.int64), row["mask"][there] > 0
        # the last run of places that are an answer's
        begin = int(np.flatnonzero(~mask)[-1]) + 1 if not mask.all() else 0
        if not begin or begin == len(tokens):
            continue
        answer = tokens[begin:]
        special = np.flatnonzero(np.isin(answer, list(tokenizer.special)))
        end = int(special[-1]) if special.size else len(answer)
        cut = not special.size and there[-1] == len(row["tokens"]) - 1
        if end and not cut:
            yield HeldExample(tokens[:begin], answer[:end], answer[end:], choices)
