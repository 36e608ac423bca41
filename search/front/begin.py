"""The run files that `shoal init` writes: for each kind one that runs as it stands and explains its keys."""

import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

from shoal.search.errors import InputError
from shoal.search.front.groups import groups_in
from shoal.search.front.keys import all_keys
from shoal.search.front.own_classes import CLASSIFIER, OWN
from shoal.search.notation import Dumper, short

LEARNING_RATES = {"kind": "float", "low": 0.0003, "high": 0.03, "log": True}
POPULATION = {"members": 8, "interval": 50, "exploit": {"kind": "truncation", "fraction": 0.25}}
SMALL_CLUSTER = {"broods": 1, "workers_per_brood": 2}
SHORT_ROWS = {"sequence_length": 128, "megabytes": 8}
SMALL_MODEL = {"layers": 4, "heads": 4, "width": 128}


class Begun(NamedTuple):
    """A new run: the values of its file, a sentence about it, and a Python file if it needs one."""

    settings: dict[str, Any]
    about: str
    module: str = ""


def text_run(name: str, data: str | None, model: str | None) -> Begun:
    return Begun(
        {
            "name": name,
            "seed": 1,
            "data": {"corpus": f"runs/corpus/{name}", "groups": groups_in(data), **SHORT_ROWS},
            "model": SMALL_MODEL,
            "training": {"steps": 1000, "batch": 16, "warmup": 50, "evaluation_rows": 48},
            "hyperparameters": {
                "learning_rate": LEARNING_RATES,
                "weight_decay": {"kind": "float", "low": 0.001, "high": 1.0, "log": True},
            },
            "population": POPULATION,
            "cluster": SMALL_CLUSTER,
        },
        "A population of small language models, trained from the beginning on your text.",
    )


def mixture_run(name: str, data: str | None, model: str | None) -> Begun:
    groups = groups_in(data)
    if len(groups) < 2:
        raise InputError(
            f"--data: a mixture needs at least two groups, which are the folders in {data}, but it has none; "
            f"sort its files into a folder for each."
        )
    return Begun(
        {
            "name": name,
            "kind": "mixture",
            "seed": 1,
            "data": {"corpus": f"runs/corpus/{name}", "groups": groups, **SHORT_ROWS},
            "swarm": {"runs": max(12, 4 * len(groups)), "steps": 100, "repeats": 2},
            "model": SMALL_MODEL,
            "training": {
                "steps": 1000,
                "batch": 16,
                "warmup": 50,
                "evaluation_rows": 48,
                "learning_rate": 0.003,
            },
            "cluster": SMALL_CLUSTER,
        },
        "A search for the best fixed mixture of your groups: small runs, a law fitted to their losses, and a "
        "run that tries its proposal beside controls.",
    )


def distill_run(name: str, data: str | None, model: str | None) -> Begun:
    if model is None:
        raise InputError(
            "--model: the folder of the teacher is needed, with its config.json and tokenizer.json."
        )
    return Begun(
        {
            "name": name,
            "kind": "distill",
            "seed": 1,
            "data": {
                "corpus": f"runs/corpus/{name}",
                "groups": groups_in(data),
                **SHORT_ROWS,
                "sequence_length": 64,
            },
            "distill": {"teacher": model, "spaces": spaces_for(model)},
            "training": {"steps": 500, "batch": 12, "warmup": 50, "evaluation_rows": 24},
            "hyperparameters": {
                "learning_rate": {"kind": "float", "low": 0.0003, "high": 0.003, "log": True},
                "tilt": {"kind": "float", "low": -1.0, "high": 1.0},
            },
            "population": {"members": 4, "interval": 50, "exploit": {"kind": "truncation", "fraction": 0.5}},
            "cluster": SMALL_CLUSTER,
        },
        "Small students of a teacher: a population of super-networks, then a search for the best in them.",
    )


def classifier_run(name: str, data: str | None, model: str | None) -> Begun:
    rows = "images.npz" if data is None else os.path.join(data, "images.npz")
    return Begun(
        {
            "name": name,
            "seed": 1,
            "trainable": f"{module_name(name)}:Classifier",
            "training": {"steps": 1000, "warmup": 50},
            "hyperparameters": {
                "learning_rate": {"kind": "float", "low": 0.00001, "high": 1.0, "log": True},
                "label_smoothing": {"kind": "float", "low": 0.0, "high": 0.3},
            },
            "population": POPULATION,
            "cluster": SMALL_CLUSTER,
        },
        f"A population of classifiers of your own rows, which {rows} holds as `images` and `labels`.",
        CLASSIFIER.replace("IMAGES", rows),
    )


def own_run(name: str, data: str | None, model: str | None) -> Begun:
    return Begun(
        {
            "name": name,
            "seed": 1,
            "trainable": f"{module_name(name)}:Mine",
            "training": {"steps": 200},
            "hyperparameters": {"rate": {"kind": "float", "low": 0.001, "high": 1.0, "log": True}},
            "population": {**POPULATION, "interval": 20},
            "cluster": SMALL_CLUSTER,
        },
        "A population of a class of your own, with a training loop of its own.",
        OWN,
    )


def finetune_run(name: str, data: str | None, model: str | None) -> Begun:
    from shoal.search.front.finetune import finetune_settings  # which imports transformers

    about = "A population of adapters of your model, trained stacked on one frozen base, on your examples."
    return Begun(finetune_settings(name, data, model), about)


NEW_RUNS: dict[str, Callable[[str, str | None, str | None], Begun]] = {
    "text": text_run,
    "finetune": finetune_run,
    "classifier": classifier_run,
    "own": own_run,
    "mixture": mixture_run,
    "distill": distill_run,
}


def new_files(kind: str, name: str, data: str | None = None, model: str | None = None) -> dict[str, str]:
    """Return file name -> content of a new run; raises InputError for what cannot be used."""
    if kind not in NEW_RUNS:
        raise InputError(f"KIND must be one of {', '.join(NEW_RUNS)}, got {short(kind)}.")
    if data is not None and not os.path.isdir(data):
        raise InputError(f"--data: must be a folder, got {data}.")
    made = NEW_RUNS[kind](name, data, model)
    head = f"# {made.about}\n# `shoal validate {name}.yaml` checks it, `shoal run {name}.yaml` trains it.\n"
    files = {f"{name}.yaml": head + commented(made.settings)}
    return files | ({f"{module_name(name)}.py": made.module} if made.module else {})


def module_name(name: str) -> str:
    return name.replace("-", "_")


def spaces_for(teacher: str) -> dict[str, Any]:
    """Return two sub-spaces that fit a teacher: some half and some three quarters as deep and as wide."""
    from shoal.search.distill.card import card_of

    shape = card_of(teacher, "--model").shape
    if shape is None:
        raise InputError(f"--model: must be a model like BERT or Llama, got {teacher}.")

    def parts(whole: int, *shares: float) -> list[int]:
        return sorted({max(1, int(whole * share)) for share in shares})

    return {
        name: {
            "depths": parts(shape.layers, low, high),
            "heads": parts(shape.heads, low, high),
            "widths": [shape.head_width * heads for heads in parts(shape.heads, low, high)],
            "ratios": [2, 3],
        }
        for name, low, high in (("small", 0.25, 0.5), ("base", 0.5, 0.75))
    }


def commented(settings: Mapping[str, Any]) -> str:
    """Return the YAML of a run's settings, each key with its meaning behind it."""
    meanings = {key.path: key.meaning for key in all_keys()}
    lines = []
    for name, value in settings.items():
        inner = isinstance(value, Mapping)
        lines.append(commented_line(name, "" if inner else value, meanings.get(name, ""), "\n" * inner))
        for key, each in value.items() if inner else ():
            # a searched hyperparameter replaces the setting of that name
            told = meanings.get(f"{name}.{key}", "") or meanings.get(f"training.{key}", "")
            lines.append(commented_line(f"  {key}", each, told))
    return "\n".join(lines) + "\n"


def commented_line(key: str, value: Any, meaning: str, before: str = "") -> str:
    """Return one line; what follows its key is written as YAML in one line."""
    plain = (
        ""
        if value == ""
        else yaml.dump(value, Dumper=Dumper, default_flow_style=True, sort_keys=False, width=10**6)
    )
    written = f"{key}: {plain.removesuffix('...' + chr(10)).strip()}".rstrip()
    return before + (f"{written}  # {meaning}" if meaning else written)
