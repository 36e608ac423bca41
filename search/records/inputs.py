"""The inputs of a run, known by content: it goes on only with the same ones, which may have moved.

The rows are known by the hash of the corpus, `data.content` in the run's own file. Models, tokenizers and the
proxy's files are known by digests, in `inputs.json`. A class of the user's own is known by its name alone:
a user may mend it and go on.
"""

import hashlib
import posixpath
import shlex
from collections.abc import Callable
from typing import Any

import pyarrow.lib
from pyarrow import fs

from shoal.cluster.storage import Store
from shoal.search.config.places import with_places
from shoal.search.config.run import Run
from shoal.search.corpus.manifest import find_corpus
from shoal.search.distill.card import teacher_folder
from shoal.search.errors import InputError
from shoal.search.models import local_folder

INPUTS = "inputs.json"
CORPUS = "data.corpus"
# these files identify a model's folder; others in it may change
PIECES = ("config.json", "adapter_config.json", "tokenizer.json", "model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".bin")
READ_AT_ONCE = 1 << 24  # bytes


def places_of(run: Run) -> dict[str, str]:
    """Return key -> place of all that a run reads, without the sources of its corpus."""
    found: dict[str, str] = {}

    def note(key: str, place: str) -> str:
        found[key] = place
        return place

    with_places(run, note)
    if run.distill is not None:  # `package:` is no place to move, but its files may change too
        keys = ["distill.teacher", *(f"distill.ensemble.{place}" for place in range(len(run.distill.ensemble)))]
        found |= dict(zip(keys, run.distill.teachers, strict=True))
    if run.pretrained:
        models = {"model.path": run.model.path, "model.begin": run.model.begin}
        found |= {key: place for key, place in models.items() if place}
    return {key: place for key, place in found.items() if is_read(run, key)}


def is_read(run: Run, key: str) -> bool:
    # rows are chosen before a run begins, so it reads nothing of its selection any more
    if key in ("directory", "code") or key.startswith(("data.groups.", "selection.")):
        return False
    return run.takes_rows or not key.startswith("data.")


def inputs_of(run: Run) -> dict[str, str]:
    """Return key -> digest of each existing place that a run reads, except its corpus."""
    found = {key: digest_of(key, place) for key, place in places_of(run).items() if key != CORPUS}
    return {key: digest for key, digest in found.items() if digest is not None}


def digest_of(key: str, place: str) -> str | None:
    """Return a digest of a file, or of the files of a model or tokenizer; None if there are none."""
    try:
        store = Store(folder_of(key, place))
        found = hashlib.blake2b(digest_size=16)
        for name in digested_names(store, key):
            found.update(f"{name} {len(name)}\n".encode())
            with store.filesystem.open_input_stream(store.path(name)) as stream:
                while part := stream.read(READ_AT_ONCE):
                    found.update(part)
        return found.hexdigest()
    except (FileNotFoundError, InputError):
        return None
    except (OSError, ValueError, pyarrow.lib.ArrowException) as error:
        raise InputError(f"{key}: {place} cannot be read: {' '.join(str(error).split())}.") from error


def folder_of(key: str, place: str) -> str:
    """Return where the files of a place lie; a package, or a model on the hub, has them in a folder here."""
    if key in ("model.path", "model.begin"):
        return local_folder(key, place)
    return teacher_folder(place, key) if place.startswith("package:") else place


def digested_names(store: Store, key: str) -> list[str]:
    """Return the names of the files that are digested in a place; "" is the place itself."""
    if store.filesystem.get_file_info(store.path()).type == fs.FileType.File:
        return [""]
    names = store.names()
    if key == "data.tokenizer":
        found = [name for name in names if name == "tokenizer.json"]
    else:
        found = [name for name in names if name in PIECES or name.endswith(ENDINGS)]
    if not found:
        raise FileNotFoundError(store.path())
    return found


def beside(place: str, before: str, now: str) -> str:
    """Return the new place of something that has moved together with the run's directory."""
    (scheme, _, inner), (own, _, root), (new, sign, target) = (split(each) for each in (place, before, now))
    if scheme != own:
        return place
    away = posixpath.relpath(inner, root)
    return new + sign + posixpath.normpath(posixpath.join(target, away))


def split(place: str) -> tuple[str, str, str]:
    """Return a URI's scheme, `://` and path; for a local path the first two are empty."""
    return place.partition("://") if "://" in place else ("", "", place)


def there(place: str) -> bool:
    try:
        return Store(place).exists()
    except (OSError, ValueError, pyarrow.lib.ArrowException):
        return False


def moved(run: Run, before: str) -> Run:
    """Return the run of a directory that has moved; places that are gone are looked for beside it."""

    def change(key: str, place: str) -> str:
        if key == "directory" or key.startswith("data.groups.") or there(place):
            return place
        found = beside(place, before, run.directory)
        return found if there(found) else place

    return run if before == run.directory else with_places(run, change)


def at_home(run: Run, store: Store, before: str) -> Run:
    """Return the run with places that hold its inputs: each is where it was, or beside the run.

    Raises InputError if an input has other content now. A missing corpus may be built again if the run has
    not moved.
    """
    noted: dict[str, Any] = store.read_json(INPUTS) if store.exists(INPUTS) else {}
    found = {}
    for key, place in places_of(run).items():
        # scores are kept under the name of their model, so its place stays
        now = place if key == "sampling.scorer" else beside(place, before, run.directory)
        candidates = list(dict.fromkeys([place, now]))
        if key == CORPUS:
            found[key] = corpus_of(run, candidates)
        elif key in noted:
            found[key] = same(key, candidates, noted[key])
    return with_places(run, lambda key, place: found.get(key, place))


def corpus_of(run: Run, candidates: list[str]) -> str:
    """Return which candidate holds the rows of a run."""
    content = run.data.content
    if content is None:  # an older version began the run and noted no content
        return candidates[0]
    for place in candidates:
        if find_corpus(run.data.model_copy(update={"corpus": place})) is not None:
            return place
    if len(candidates) == 1:
        return candidates[0]
    raise InputError(
        f"data.corpus: the run has moved, and neither {' nor '.join(candidates)} has the rows it began with "
        f"({content}). Put its corpus there, or go on with "
        f"`shoal run FILE directory={shlex.quote(run.directory)} data.corpus=... --resume must`."
    )


def same(key: str, candidates: list[str], noted: str) -> str:
    """Return the candidate with the noted digest, or the first one if all of them are gone."""
    digests = {place: digest_of(key, place) for place in candidates}
    for place, digest in digests.items():
        if digest == noted:
            return place
    other = [place for place, digest in digests.items() if digest is not None]
    if not other:
        return candidates[0]  # an error comes where it is needed; finished scores need no model
    raise InputError(
        f"{key}: {other[0]} is not what the run began with: its content is {digests[other[0]]}, and was "
        f"{noted}. Put that back, or begin another run with directory=..."
    )


def check_same(given: Run, store: Store) -> Callable[[str], bool]:
    """Return a function that says whether a key is a place whose content the run has noted.

    Raises InputError if the given run has other content there. The corpus is checked when it is opened.
    """
    noted: dict[str, Any] = store.read_json(INPUTS) if store.exists(INPUTS) else {}
    for key, place in places_of(given).items():
        if key in noted:
            same(key, [place], noted[key])
    return lambda key: any(each == key or each.startswith(f"{key}.") for each in noted)
