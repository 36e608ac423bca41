"""What `shoal refine` does: train, flag rows, have them rewritten, and train anew until a round is the last.

The record `refine.json` in the run's directory says what is done, so a command that was killed goes on there.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console

from shoal.cluster.storage import Store
from shoal.policies.selection.refine import ACTIONS, Refine
from shoal.search.config.run import Run
from shoal.search.config.sections import Data
from shoal.search.corpus.build import prepare_corpus
from shoal.search.corpus.manifest import find_corpus
from shoal.search.errors import InputError, RunFailed
from shoal.search.records import directory
from shoal.search.runs.kinds import runner
from shoal.search.runs.select import with_chosen_rows
from shoal.search.selection.corpora import Corpus
from shoal.search.selection.language import CAUSAL, check_readable
from shoal.search.selection.refining import (
    ROUND_ACTIONS,
    actions_table,
    rewriter_of,
    signals_of,
    write_generation,
)

RECORD = "refine.json"


def refine_rows(run: Run, console: Console) -> None:
    """Train and refine in rounds; each round's run and its actions lie in a folder of the run's directory."""

    def report(line: str) -> None:
        console.print(line, highlight=False, soft_wrap=True, markup=False)

    check_refining(run)
    assert run.refine is not None
    made, policy = rewriter_of(run), run.refine.build()
    store = Store(run.directory)
    record: dict[str, Any] = store.read_json(RECORD, "rounds") if store.exists(RECORD) else {"rounds": []}
    data = first_corpus(run, report)
    check_readable("refine.base", run.refine.base, *tokens_of_corpus(data), CAUSAL)
    rounds: list[dict[str, Any]] = record["rounds"]
    for number in range(policy.rounds):
        if number == len(rounds):
            rounds.append(refined(run, data, number, policy, [*rounds], made, console, report))
            store.write_json(RECORD, record)
        done = rounds[number]
        report(round_in_words(number, done))
        if done["ended"]:
            report(f"refine: ends, since {done['ended']}; best round: {best_round(rounds)}")
            return
        data = data.model_copy(update={"corpus": done["corpus"], "content": done["content"]})


def check_refining(run: Run) -> None:
    if run.refine is None:
        raise InputError(
            "refine: the file must say who rewrites rows, such as `refine: {made: mine:Writer, ...}`."
        )
    if run.kind != "population" or run.trainable not in ("decoder", "causal_lm") or run.rows != "tokens":
        raise InputError(
            "refine: needs a population of decoders, or of causal_lm, on rows of plain tokens; got "
            f"{run.kind} of {run.trainable} on {run.rows}."
        )


def first_corpus(run: Run, report: Callable[[str], None]) -> Data:
    run = with_chosen_rows(run, report, renew=True)
    manifest = prepare_corpus(run.data, report, renew=True)
    return run.data.model_copy(update={"content": manifest.content})


def tokens_of_corpus(data: Data) -> tuple[str, int]:
    manifest = find_corpus(data)
    assert manifest is not None, "the corpus was just prepared"
    return manifest.tokenizer, manifest.vocabulary


def refined(
    run: Run,
    data: Data,
    number: int,
    policy: Refine,
    before: list[dict[str, Any]],
    made: Any,
    console: Console,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Train on a round's rows and make those of the next; return what is recorded of the round."""
    manifest = find_corpus(data)
    if manifest is None:
        raise InputError(
            f"refine: the rows of round {number} are gone from {data.corpus}; delete {run.directory}."
        )
    folder = f"round-{number}"
    place = f"{run.directory}/{folder}"
    trained = run.model_copy(
        update={
            "directory": place,
            "data": data,
            "refine": None,
            "selection": None,
            "name": f"{run.name}-{number}",
        }
    )
    runner(run.kind).run_new(trained, console, resume="auto")
    told = directory.summary(Store(place))
    if told.get("status") != "done":
        raise RunFailed(f"refine: the run of round {number} did not end; see {place}.")
    score = float(told["best_score"])
    corpus = Corpus(data, manifest, tuple(run.unseen))
    signals = signals_of(run, corpus, f"{place}/best", made, report)
    flagged = policy.flag(signals.columns)
    Store(place).write_table(ROUND_ACTIONS, actions_table(signals, flagged))
    counts = np.bincount(flagged.action, minlength=len(ACTIONS)).tolist()
    found: dict[str, Any] = {
        "score": score,
        "rows": len(signals.ids),
        "actions": dict(zip(ACTIONS, [*counts[:-1], int(flagged.seeds.sum())], strict=True)),
        "share": flagged.share,
    }
    rounds = [*before, found]
    found["ended"] = policy.ended([each["share"] for each in rounds], [each["score"] for each in rounds])
    if found["ended"]:
        return found
    following = data.model_copy(update={"corpus": f"{run.data.corpus}-round-{number + 1}", "content": None})
    written, generation = write_generation(corpus, following, signals, flagged, number, made)
    return found | {
        "corpus": following.corpus,
        "content": written.content,
        "made": int((generation.action != 0).sum()),
    }


def round_in_words(number: int, done: dict[str, Any]) -> str:
    flagged = ", ".join(f"{count} {action}" for action, count in done["actions"].items() if action != "keep")
    made = f"; {done['made']} rows were made" if "made" in done else ""
    return f"refine: round {number}: score {done['score']:.4f} on {done['rows']} rows; flagged {flagged}{made}"


def best_round(rounds: list[dict[str, Any]]) -> int:
    return max(range(len(rounds)), key=lambda number: rounds[number]["score"])
