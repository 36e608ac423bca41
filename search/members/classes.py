"""Which class the members of a run are of, with its constants: built in or the user's own, by one door."""

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from shoal.policies.sampling.learnt_weights import Storm
from shoal.policies.sampling.storm import FEATURES, Passes, features
from shoal.search.config.objective import (
    class_settings,
    embedder_settings,
    lacking_vector,
    objective_of,
    objectives_of,
)
from shoal.search.config.run import Run
from shoal.search.config.trainable import FACTS
from shoal.search.corpus.build import load_corpus
from shoal.search.corpus.text import sample_of
from shoal.search.errors import InputError
from shoal.search.members.declarations import constants_in
from shoal.search.members.own_class import own_class
from shoal.search.models import settings_of
from shoal.trainables.arrays import map_nest
from shoal.trainables.objectives.weighted import Weighted
from shoal.trainables.pretrained.settings import Pretrained


@dataclass(frozen=True)
class Made:
    """A class, or a function of the user's that makes members, and its constants."""

    of: Any
    constants: Mapping[str, Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.of(*arguments, **self.constants)


def class_of(run: Run) -> Made:
    """Return the class of a run's members."""
    if run.own:
        found = own_class(run.trainable, run.code)
        return Made(found, facts(run, constants_in(found)) | run.settings)
    return BUILT_IN_CLASSES[run.trainable](run)


def facts(run: Run, taken: Collection[str]) -> dict[str, Any]:
    """Return what a class may be told of the rows that it takes, as far as it has such a constant."""
    wanted = set(taken) & set(FACTS) - run.settings.keys()
    if not wanted or not run.takes_rows or run.rows == "columns":
        return {}
    known = {"vocabulary": load_corpus(run.data).vocabulary, "sequence_length": run.data.sequence_length}
    return {name: known[name] for name in wanted}


def exported_class(run: Run, config: Mapping[str, Any]) -> Made:
    """Return the class of an exported model, of which the run's members are too."""
    if run.own:
        return class_of(run.model_copy(update={"settings": config["settings"]}))
    made = class_of(run)
    shape = type(made.constants["shape"])(**config["shape"])
    return Made(made.of, {"shape": replace(shape, sequence_length=run.data.sequence_length)})


def decoder(run: Run) -> Made:
    from shoal.trainables.language import LanguageModel
    from shoal.trainables.settings import DecoderShape

    vocabulary, length = load_corpus(run.data).vocabulary, run.data.sequence_length
    shape = DecoderShape(vocabulary=vocabulary, sequence_length=length, **run.model.shape)
    told = run.model.cooling if shape.experts > 1 else {}
    return Made(LanguageModel, {"shape": shape, "losses": objective_of(run), **told})


def causal_lm(run: Run) -> Made:
    given = settings_of(run)
    made = pretrained_class(given, objective_of(run))
    if given.adapter is None or given.adapter.begin != "fila":
        return made
    return Made(made.of, {**made.constants, "known_rows": rows_apart(run)})


def rows_apart(run: Run) -> dict[str, Any]:
    """Return a sample of the training rows to `forget`, and of those to `retain`."""
    sample = sample_of(run, "train", run.training.evaluation_rows)
    groups = {"forget": list(run.forgotten), "retain": [name for name in sample if name not in run.forgotten]}
    return {name: map_nest(joined, *(sample[group] for group in found)) for name, found in groups.items()}


def joined(*arrays: Any) -> Any:
    return np.concatenate(arrays)


def pretrained_class(given: Pretrained, losses: Weighted | None = None) -> Made:
    """Return the class of members of a pretrained model."""
    from shoal.trainables.pretrained.causal import CausalModel

    return Made(CausalModel, {"pretrained": given, "losses": losses})


def preference(run: Run) -> Made:
    from shoal.trainables.pretrained.preference import PreferenceModel

    return Made(PreferenceModel, {"pretrained": settings_of(run), "losses": objectives_of(run)})


def classifier(run: Run) -> Made:
    from shoal.search.members.class_facts import facts_of
    from shoal.trainables.classifier import Classifier

    settings = class_settings(run)
    losses = objectives_of(run)
    facts = facts_of(run, settings, losses)
    told = {"settings": settings, "losses": losses, "facts": facts, "rescaling": rescaling_of(run)}
    return Made(Classifier, told)


def rescaling_of(run: Run) -> Any:
    """Return by what a classifier learns the weights of its rows, or None."""
    from shoal.trainables.class_rescaling import Rescaling

    rule = run.sampling.rule.build() if run.sampling.rule else None
    if not isinstance(rule, Storm):
        return None
    return Rescaling(rule.passes, rule.rate, rule.virtual, FEATURES, features_of)


def features_of(now: Mapping[str, Any], before: Mapping[str, Any] | None) -> Any:
    """Return STORM's features of a batch, `(rows, 19)`."""
    return features(Passes(**now), Passes(**before) if before else None)


def embedder(run: Run) -> Made:
    from shoal.search.members.embedder_rows import check_embedder_rows, odd_negatives
    from shoal.search.members.text_facts import documents_of, texts_of, unpackaged_settings
    from shoal.trainables.embedder import Embedder

    settings, losses = unpackaged_settings(embedder_settings(run)), objectives_of(run)
    fields = {str(name): tuple(shape) for name, _, shape in load_corpus(run.data).fields}
    if problem := lacking_vector(settings, losses, fields):
        raise InputError(problem)
    sizes = {role: math.prod(fields[name]) for role, name in settings.roles.items() if name in fields}
    texts = texts_of(run, settings, losses)
    documents = documents_of(settings) if settings.index else None
    check_embedder_rows(run, settings, losses.fields, documents)
    vectors = documents is None and not texts.get("vocabulary")
    if vectors and settings.towers == "one" and sizes["query"] != sizes["positive"]:
        raise InputError(
            f"settings.towers: must be two where queries have {sizes['query']} numbers and positives "
            f"{sizes['positive']}"
        )
    if vectors and "negatives" in losses.needs and fields[settings.negatives][1:] != (sizes["positive"],):
        raise InputError(
            f"data.columns.{settings.negatives}: must have the shape [most, {sizes['positive']}], a vector "
            f"as long as a positive for each negative, got {list(fields[settings.negatives])}"
        )
    if problem := odd_negatives(settings, losses.fields, fields, bool(texts)):
        raise InputError(problem)
    told = {"settings": settings, "losses": losses, "sizes": sizes, "rows": run.training.batch}
    return Made(Embedder, told | texts | {"documents": documents})


# `trainable:` in a file -> the class, with the constants that the file gives
BUILT_IN_CLASSES: dict[str, Callable[[Run], Made]] = {
    "decoder": decoder,
    "causal_lm": causal_lm,
    "preference": preference,
    "classifier": classifier,
    "embedder": embedder,
}
