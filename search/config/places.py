"""The places that a run's file names: files, folders and URIs."""

import importlib.util
import os
import re
import string
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoal.search.config.run import Run
from shoal.search.config.sections import Data, Model
from shoal.search.errors import InputError
from shoal.trainables.tokenizer import TOKENIZERS

if TYPE_CHECKING:
    from shoal.search.config.distill import Distill
    from shoal.search.config.selection import Selection
    from shoal.search.config.stages import Begin

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# the constants of built-in classes that are places
IN_SETTINGS = {"embedder": ("encoder", "index"), "classifier": ("weights",)}
ChangePlace = Callable[[str, str], str]  # (key, place) -> the new place


def with_places(run: Run, change: ChangePlace) -> Run:
    """Return the run with all of its places changed; `installed`, `bytes` and `package:` are no places."""
    mixing, sampling = run.mixing, run.sampling
    changes: dict[str, Any] = {"data": of_text(run.data, change)} if run.takes_rows else {}
    if run.code:
        changes["code"] = change("code", run.code)
    if run.directory:
        changes["directory"] = change("directory", run.directory)
    if mixing is not None and mixing.reference is not None:
        reference = change("mixing.reference", mixing.reference)
        changes["mixing"] = mixing.model_copy(update={"reference": reference})
    if sampling.scorer is not None:
        scorer = change("sampling.scorer", sampling.scorer)
        changes["sampling"] = sampling.model_copy(update={"scorer": scorer})
    if any(is_place(place) for place in (run.model.path, run.model.begin)):
        changes["model"] = of_model(run.model, change)
    if keys := IN_SETTINGS.get(run.trainable):
        changes["settings"] = of_settings(run.settings, keys, change)
    if run.begin is not None:
        changes["begin"] = of_begin(run.begin, change)
    if run.selection is not None:
        changes["selection"] = of_selection(run.selection, change)
    if run.refine is not None and is_place(run.refine.base):
        changes["refine"] = run.refine.model_copy(update={"base": change("refine.base", run.refine.base)})
    if run.distill is not None:
        changes["distill"] = of_teachers(run.distill, change)
    return run.model_copy(update=changes)


def of_model(model: Model, change: ChangePlace) -> Model:
    given = {"path": model.path, "begin": model.begin}
    found = {key: change(f"model.{key}", place) for key, place in given.items() if is_place(place)}
    return model.model_copy(update=found)


def of_settings(settings: Mapping[str, Any], keys: tuple[str, ...], change: ChangePlace) -> dict[str, Any]:
    places = {key: settings.get(key) for key in keys}
    found = {
        key: change(f"settings.{key}", place)
        for key, place in places.items()
        if isinstance(place, str) and place and not place.startswith("package:")
    }
    return {**settings, **found}


def of_begin(begin: "Begin", change: ChangePlace) -> "Begin":
    found = {"run": change("begin.run", begin.run)}
    if begin.mix:
        found["mix"] = change("begin.mix", begin.mix)
    return begin.model_copy(update=found)


def is_place(model: str) -> bool:
    """Say whether a model's name is a folder or a URI, and not a package's or one on the hub."""
    return bool(model) and not model.startswith("package:") and not is_hub_name(model)


def is_hub_name(model: str) -> bool:
    """Say whether a model's name can be one on the hub, `OWNER/NAME`, and is no folder here."""
    return bool(HUB_NAME.fullmatch(model)) and not os.path.exists(model.partition("/")[0])


def package_folder(key: str, place: str) -> str:
    """Return the folder of a Python package that `package:NAME/FOLDER` names; raises InputError without one."""
    name, _, inside = place.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{key}: no package `{name}` is installed, got {place}.")
    return str(Path(spec.submodule_search_locations[0], inside))


def unpackaged(key: str, place: str) -> str:
    """Return the folder of a package that a place names; any other place stays as it is."""
    return package_folder(key, place) if place.startswith("package:") else place


def of_text(data: Data, change: ChangePlace) -> Data:
    groups = {
        name: source if source == "installed" else change(f"data.groups.{name}", source)
        for name, source in data.groups.items()
    }
    found: dict[str, Any] = {"corpus": change("data.corpus", data.corpus), "groups": groups}
    if data.tokenizer not in TOKENIZERS:
        found["tokenizer"] = change("data.tokenizer", data.tokenizer)
    return data.model_copy(update=found)


def of_selection(selection: "Selection", change: ChangePlace) -> "Selection":
    target = {
        name: source if source == "installed" else change(f"selection.target.{name}", source)
        for name, source in selection.target.items()
    }
    scores = []
    for place, score in enumerate(selection.scores):
        keys = [key for key in ("model", "base", "path") if hasattr(score, key)]
        given = {key: getattr(score, key) for key in keys if key == "path" or is_place(getattr(score, key))}
        changed = {key: change(f"selection.scores.{place}.{key}", name) for key, name in given.items()}
        scores.append(score.model_copy(update=changed))
    found: dict[str, Any] = {"target": target, "scores": scores}
    if selection.corpus:
        found["corpus"] = change("selection.corpus", selection.corpus)
    return selection.model_copy(update=found)


def of_teachers(distill: "Distill", change: ChangePlace) -> "Distill":
    search, proxy = distill.search, distill.search.proxy
    if proxy is not None:
        files = {
            name: change(f"distill.search.proxy.{name}", getattr(proxy, name)) for name in ("train", "test")
        }
        search = search.model_copy(update={"proxy": proxy.model_copy(update=files)})
    keys = ["distill.teacher", *(f"distill.ensemble.{place}" for place in range(len(distill.ensemble)))]
    folders = [
        folder if folder.startswith("package:") else change(key, folder)
        for key, folder in zip(keys, distill.teachers, strict=True)
    ]
    return distill.model_copy(update={"teacher": folders[0], "ensemble": folders[1:], "search": search})


def absolute(key: str, place: str) -> str:
    """Return a place as an absolute path, which is the same in every working folder."""
    found = expanded_place(key, place)
    # scores are kept under the scorer's name as the file gives it, so that name stays
    return found if "://" in found or key == "sampling.scorer" else os.path.abspath(found)


def expanded_place(key: str, place: str, variables: Mapping[str, str] = os.environ) -> str:
    """Return a place with ~ and environment variables replaced; raises InputError for an unknown one."""
    try:
        found = string.Template(place).substitute(variables)
    except KeyError as error:
        raise InputError(
            f"{key}: there is no environment variable {error.args[0]}, got {place}; set it, or write $$ for "
            f"a dollar sign."
        ) from error
    except ValueError as error:
        raise InputError(f"{key}: write $$ for a dollar sign that begins no variable, got {place}.") from error
    if "\0" in found or not found.strip():
        raise InputError(f"{key}: must be a file, a folder or a URI, got {place!r}.")
    home = found if "://" in found else os.path.expanduser(found)
    if home.startswith("~") and home.partition("/")[0] != "~":
        raise InputError(
            f"{key}: there is no user {home.partition('/')[0][1:]}, got {place}; write ./ before it."
        )
    return home


def refuse_variables(key: str, place: Any) -> None:
    """Raise InputError where a place of a job names environment variables."""
    if "$" in str(place).replace("$$", ""):
        raise InputError(
            f"{key}: environment variables may differ on the cluster; write the place out, got {place}."
        )


def escaped(key: str, place: str) -> str:
    """Return a place as a file writes it: `$$` for each dollar sign, since one alone begins a variable."""
    return place.replace("$", "$$")
