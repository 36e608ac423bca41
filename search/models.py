"""The folder of a pretrained model, as `model.path` and `model.begin` name it, and what must hold of it.

A folder, a package of Python's that holds one, a URI, or a name on the hub. Only config files, tokenizers and
safetensors are read, and nothing in it is ever run.
"""

import hashlib
import importlib.util
import json
import os
import re
from pathlib import Path
from typing import Any

import pyarrow.lib

from shoal.cluster.storage import Store, reason
from shoal.search.checks.recipes import uses
from shoal.search.config.kinds import SpaceWithin
from shoal.search.config.places import is_hub_name, package_folder
from shoal.search.config.run import Run
from shoal.search.errors import InputError, nearest
from shoal.search.hidden_tokens import check_direction, finds_hidden, refuse_hidden
from shoal.trainables.pretrained.settings import LowRank, Pretrained, own_config

INSTALL_MODELS = "pip install 'shoal[hf]'"
FETCHED = ("*.json", "*.safetensors", "*.jinja")
MODEL_FILE = re.compile(r".+\.(json|safetensors|jinja)")
CACHE = "~/.cache/shoal/models"  # models of URIs are copied there, once on each machine


def settings_of(run: Run) -> Pretrained:
    """Return what the members of a run train, with folders on this machine."""
    given = run.model
    begin = local_folder("model.begin", given.begin) if given.begin else ""
    path = local_folder("model.path", given.path or base_of(begin))
    adapter = given.adapter.build() if given.adapter is not None else adapter_of(begin)
    whole = adapter is None and bool(begin)  # an export of all weights is a model of its own
    return Pretrained(
        path=begin if whole else path,
        adapter=adapter,
        gradient_checkpointing=given.gradient_checkpointing,
        begin="" if whole else begin,
        fresh=tuple(given.fresh),
        freeze=tuple(given.freeze),
    )


def base_of(begin: str) -> str:
    """Return the model that an exported adapter belongs to; the folder itself if it is a whole model."""
    file = Path(begin, "adapter_config.json")
    if not begin or not file.exists():
        return begin
    return str(json.loads(file.read_text()).get("base_model_name_or_path", ""))


def adapter_of(begin: str) -> LowRank | None:
    """Return the settings of an exported adapter, which its members go on with."""
    if not begin or not Path(begin, "adapter_config.json").exists():
        return None
    from shoal.trainables.pretrained.peft_files import read_adapter_config

    known = read_adapter_config(begin)
    targets = tuple(sorted(known["target_modules"]))
    return LowRank(known["r"], known["lora_alpha"], known.get("lora_dropout", 0.0), targets)


def exported_pretrained(folder: str) -> Pretrained:
    """Return what an exported member is, as it was trained: an adapter on its base, or a whole model."""
    folder = copied("mixing.reference", folder) if "://" in folder else folder
    adapter = adapter_of(folder)
    if adapter is None:
        return Pretrained(path=folder)
    return Pretrained(local_folder("mixing.reference", base_of(folder)), adapter, begin=folder)


def told_of(key: str, folder: str) -> dict[str, Any]:
    """Return what Shoal noted of a pretrained member that it exported; raises InputError if it did not."""
    given, folder = folder, copied(key, folder) if "://" in folder else folder
    try:
        beside = Path(folder, "shoal.json")  # an adapter has it; a whole model's configuration holds the same
        known = json.loads((beside if beside.exists() else Path(folder, "config.json")).read_text())
    except (OSError, ValueError):
        known = {}
    told: dict[str, Any] = known.get("shoal", known)
    if told.get("trainable") != "causal_lm" or "step" not in told:
        raise InputError(
            f"{key}: must be the folder of an exported causal_lm, such as runs/NAME/best, got {given}."
        )
    return told


def check_told(run: Run, key: str, folder: str) -> None:
    """Raise InputError if an exported member reads other tokens than the run's members."""
    from shoal.search.tokenizers import open_tokenizer

    told_of(key, folder)
    refuse_hidden(key, copied(key, folder) if "://" in folder else folder, folder)
    theirs = config_of(exported_pretrained(folder).path).get("vocab_size")
    ours = open_tokenizer(run.data.tokenizer).vocabulary
    if isinstance(theirs, int) and theirs < ours:
        raise InputError(
            f"{key}: must have the {ours} tokens of data.tokenizer ({run.data.tokenizer}), but {folder} has "
            f"{theirs}."
        )


def local_folder(key: str, place: str) -> str:
    """Return a model's folder on this machine; raises InputError under the key if there is none."""
    if place.startswith("package:"):
        return package_folder(key, place)
    if is_hub_name(place):
        return from_hub(key, place)
    if "://" in place:
        return copied(key, place)
    if not os.path.isdir(place):
        raise InputError(f"{key}: must be the folder of a model, with config.json, got {place}.")
    return place


def from_hub(key: str, name: str) -> str:
    try:
        from huggingface_hub import snapshot_download

        return str(snapshot_download(name, allow_patterns=list(FETCHED)))
    except Exception as error:  # the hub's package raises many kinds
        said = str(error).strip().splitlines()
        raise InputError(
            f"{key}: {name} is no folder here, and cannot be had from the hub: {said[0] if said else error}"
        ) from error


def copied(key: str, uri: str) -> str:
    """Copy a model's files from a URI, if they are not here yet, and return their folder."""
    folder = Path(CACHE).expanduser() / hashlib.blake2b(uri.encode(), digest_size=8).hexdigest()
    try:
        there, here = Store(uri), Store(str(folder))
        for name in [each for each in there.names() if MODEL_FILE.fullmatch(each)]:
            size = there.filesystem.get_file_info(there.path(name)).size
            if not here.exists(name) or here.filesystem.get_file_info(here.path(name)).size != size:
                here.write(name, there.read(name))
    except (OSError, ValueError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{key}: {uri} cannot be read: {reason(error)}.") from error
    if not folder.is_dir():
        raise InputError(f"{key}: must be the folder of a model, with config.json, got {uri}.")
    return str(folder)


def tokenizer_folder(run: Run) -> str:
    """Return the folder of a model's own tokenizer: an export has it, and else the model that it began with.

    That of an exported decoder may also be a word, such as bytes.
    """
    begin = local_folder("model.begin", run.model.begin) if run.model.begin else ""
    if begin and Path(begin, "tokenizer.json").exists():
        return begin
    folder = local_folder("model.path", run.model.path or base_of(begin))
    own = own_config(folder)
    return folder if own is None else str(own["tokenizer"])


def check_pretrained(run: Run) -> None:
    """Raise InputError, in one line, if a run's members cannot be made of the model that its file names."""
    if not run.model.path and not run.model.begin:
        raise InputError(
            f"model.path: is required with trainable: {run.trainable}, such as a folder of transformers."
        )
    try:
        given = settings_of(run)
    except ValueError as error:
        raise InputError(f"model: {error}") from error
    own = own_config(given.path)
    for name in ("transformers", "tokenizers") if own is None else ():
        if importlib.util.find_spec(name) is None:
            raise InputError(f"trainable: {run.trainable} needs the package {name}: {INSTALL_MODELS}")
    if own is not None:
        check_own_decoder(run, given, own)
    if run.trainable == "preference" and given.begin:
        raise InputError(
            "model.begin: must not be an adapter with trainable: preference: the base without one is the "
            "reference, with which answers are compared; merge it (shoal export --merge) and begin with that."
        )
    config = config_of(given.path)
    check_direction(run, given)
    check_length(run, config)
    check_vocabulary(run, config)
    check_parts(run, given, outline_of(given.path))


def check_own_decoder(run: Run, given: Pretrained, config: dict[str, Any]) -> None:
    """Raise InputError if an exported decoder of ours cannot be trained on pairs of answers."""
    if run.trainable != "preference":
        raise InputError(
            f"model.path: {given.path} is a decoder of ours, which trainable: decoder goes on with (begin.run);"
            f" {run.trainable} trains models of transformers."
        )
    if finds_hidden(config):
        raise InputError(
            f"model.path: must be a decoder that finds the next token; {given.path} was trained on hidden ones."
        )
    if given.fresh:
        raise InputError("model.fresh: must be left out with an exported decoder; `begin` draws weights anew.")
    theirs, ours = (os.path.basename(str(name)) for name in (config["tokenizer"], run.data.tokenizer))
    if theirs != ours:
        raise InputError(
            f"data.tokenizer: must be that of the decoder, {config['tokenizer']}, got {run.data.tokenizer}; "
            f"leave it out."
        )


def config_of(folder: str, key: str = "model.path") -> dict[str, Any]:
    """Return a model's config.json; raises InputError if it is missing, or the folder is not to be opened."""
    from shoal.trainables.pretrained.folder import weight_files

    try:
        config: dict[str, Any] = json.loads(Path(folder, "config.json").read_text())
        files = weight_files(folder)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{key}: must be a model with config.json, got {folder}: {reason(error)}.") from error
    if "auto_map" in config:
        raise InputError(
            f"{key}: {folder} needs code of its own (auto_map in config.json), and nothing from a model's "
            f"folder is ever run; take a model that transformers knows by itself."
        )
    if missing := [file.name for file in files if not file.exists()] or (
        [] if files else ["model.safetensors"]
    ):
        raise InputError(
            f"{key}: {folder} has no {missing[0]}, and only safetensors are read; save the model anew by "
            f"transformers' save_pretrained."
        )
    return config


def outline_of(folder: str) -> Any:
    from shoal.trainables.pretrained.folder import outline

    try:
        return outline(folder)
    except Exception as error:  # transformers raises many kinds
        said = str(error).strip().splitlines()
        raise InputError(
            f"model.path: {folder} is no causal language model of transformers: {said[0] if said else error}"
        ) from error


def check_length(run: Run, config: dict[str, Any]) -> None:
    most = config.get("max_position_embeddings")
    if isinstance(most, int) and run.data.sequence_length > most:
        raise InputError(
            f"data.sequence_length: must be at most the model's {most} positions, got "
            f"{run.data.sequence_length}."
        )
    written = run.score.tokens if run.score.kind == "exact_match" else 0
    if isinstance(most, int) and run.data.sequence_length + written > most:
        raise InputError(
            f"score.tokens: a prompt of data.sequence_length ({run.data.sequence_length}) and an answer of "
            f"{written} tokens must be within the model's {most} positions; lower one of the two."
        )


def check_vocabulary(run: Run, config: dict[str, Any]) -> None:
    from shoal.search.tokenizers import open_tokenizer

    found = open_tokenizer(run.data.tokenizer).vocabulary
    known = config.get("vocab_size", config.get("shape", {}).get("vocabulary"))
    if isinstance(known, int) and found > known:
        raise InputError(
            f"data.tokenizer: must have at most the model's {known} tokens, but {run.data.tokenizer} has "
            f"{found}; leave it out to take the model's own."
        )


def check_parts(run: Run, given: Pretrained, module: Any) -> None:
    """Raise InputError if the adapter, or a pattern of weights, does not fit the model."""
    from shoal.trainables.pretrained.low_rank import linear_sizes
    from shoal.trainables.recipes.frozen import matching

    for key in ("density", "bits"):
        if given.adapter is not None and uses(run, key):
            raise InputError(
                f"training.{key}: is of weights that train, and those of a base do not; leave it out."
            )
    if given.adapter is not None:
        check_adapter(run, given.adapter, linear_sizes(module))
        return
    names = {name for name, _ in module.named_parameters()}
    for key in ("fresh", "freeze"):
        try:
            matching(names, getattr(given, key), key)
        except ValueError as error:
            raise InputError(f"model.{error}") from error
    if "rank" in run.hyperparameters or "rank" in run.population.parts:
        raise InputError("hyperparameters.rank: needs model.adapter, of whose ranks it uses the first.")


def check_adapter(run: Run, adapter: LowRank, sizes: dict[str, tuple[int, int]]) -> None:
    lasts = sorted({name.rpartition(".")[2] for name in sizes})
    for target in adapter.targets:
        fit = [min(size) for name, size in sizes.items() if name == target or name.endswith(f".{target}")]
        if not fit:
            raise InputError(
                f"model.adapter.targets: no linear layer is called {target}{nearest(target, lasts)}"
            )
        if adapter.rank > min(fit):
            raise InputError(
                f"model.adapter.rank: must be at most the width of each target, which is {min(fit)} for "
                f"{target}, got {adapter.rank}."
            )
    domain, fixed = run.hyperparameters.get("rank"), run.population.parts.get("rank")
    if domain is None and fixed is None:
        return
    place, values = ("hyperparameters", ends_of(domain)) if fixed is None else ("population.parts", list(fixed))
    if not all(type(value) is int and 1 <= value <= adapter.rank for value in values):
        raise InputError(
            f"{place}.rank: must be whole numbers from 1 to model.adapter.rank ({adapter.rank}), as "
            f"many as are stored, got {', '.join(map(str, values))}."
        )


def ends_of(domain: Any) -> list[Any]:
    """Return the bounds of a domain, or all its values."""
    if isinstance(domain, SpaceWithin):
        return [domain]
    return list(domain.values) if hasattr(domain, "values") else [domain.low, domain.high]
