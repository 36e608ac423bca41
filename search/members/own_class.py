"""Members of the user's own: a class in a file of theirs, named in YAML as `module:Class`."""

import contextlib
import importlib
import inspect
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from shoal.search.errors import InputError
from shoal.search.members.declarations import constants_in, made_with, undeclared
from shoal.search.traces import OURS, trace_of

METHODS: list[tuple[str, tuple[str, ...]]] = [
    ("train", ("steps",)),
    ("evaluate", ()),
    ("evaluate", ("split",)),
    ("state", ()),
    ("load", ("state", "hyperparameters")),
]


def own_class(trainable: str, folder: str = "", draft: bool = False) -> Any:
    """Return what `module:Class` names, which lies in `folder`, in the working folder, or is installed.

    Raises InputError with the file and the line of what is wrong with it; a `draft` may have no method yet.
    """
    name, _, attribute = trainable.partition(":")
    folders = list(dict.fromkeys(os.path.abspath(each) for each in (folder, os.getcwd()) if each))
    for each in reversed(folders):
        if each not in sys.path:
            sys.path.insert(0, each)
    importlib.invalidate_caches()  # a file may be younger than the last look
    module = imported(name, trainable, folders)
    found: Any = getattr(module, attribute, None)
    if not callable(found):
        raise InputError(f"trainable: {name} must have a class or function `{attribute}`, but has none")
    if (problem := why_unusable(found)) and not (draft and is_draft(found)):
        raise InputError(f"trainable: {file_and_line(found)}{attribute} {problem}")
    return found


def refuse_hiding() -> None:
    """Raise InputError where a file of the working folder stands before Shoal, as it would in workers."""
    for file in module_files(os.getcwd(), "shoal"):
        if os.path.exists(file) and not os.path.samefile(file, str(sys.modules["shoal"].__file__)):
            raise InputError(
                f"{file}: hides Shoal from its workers; give it another name, or start from another folder"
            )


def imported(name: str, trainable: str, folders: list[str]) -> ModuleType:
    own = [file for folder in folders for file in module_files(folder, name) if os.path.exists(file)]
    try:
        with contextlib.redirect_stdout(sys.stderr):  # a program may read standard output as YAML
            module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise import_failure(error, own) from error
        raise InputError(
            f"trainable: no module `{name}` in {' or '.join(folders)} or among what is installed, "
            f"got {trainable}"
        ) from error
    except (Exception, SystemExit) as error:  # whatever a file of the user's may raise
        raise import_failure(error, own) from error
    there = getattr(module, "__file__", None)
    if own and (there is None or not any(os.path.samefile(there, file) for file in own)):
        raise InputError(
            f"trainable: {own[0]} is not found, since `{name}` is the name of another module, "
            f"{there or 'one of Python'}; give the file another name"
        )
    return module


def module_files(folder: str, name: str) -> list[str]:
    path = os.path.join(folder, *name.split("."))
    return [f"{path}.py", os.path.join(path, "__init__.py")]


def import_failure(error: BaseException, own: list[str]) -> InputError:
    """Return where and why a module cannot be imported, in one line."""
    if isinstance(error, SyntaxError):
        place = f"{near(error.filename or own[0])}:{error.lineno or 1}"
        said = f"{type(error).__name__}: {error.msg}"
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users_file(frame.filename)]
        place = f"{near(frames[-1].filename)}:{frames[-1].lineno}" if frames else near(own[0] if own else "")
        said = f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")
    if isinstance(error, SystemExit):
        said = f"it ends the program when it is imported (sys.exit({error.code!r})); let it not"
    if isinstance(error, ModuleNotFoundError):
        said += "; install it"
    return InputError(f"{place}: {said}", trace_of(error))


def is_users_file(file: str) -> bool:
    """Say whether a frame of a trace is in a file of the user's, and not in Python, in Shoal or installed."""
    libraries = [Path(sysconfig.get_path(each)) for each in ("stdlib", "platstdlib", "purelib", "platlib")]
    inside = any(Path(file).is_relative_to(each) for each in [*libraries, *OURS])
    return os.path.isfile(file) and not inside


def near(file: str) -> str:
    """Return a file's name as it is seen from the working folder, where it lies in or below it."""
    inside = os.path.relpath(file)
    return file if inside.startswith("..") else inside


def why_unusable(found: Any) -> str:
    """Return why members cannot be made of a class or function, or used, as far as that shows before."""
    if inspect.isabstract(found):
        lacking = ", ".join(sorted(found.__abstractmethods__))
        return f"must have the methods {lacking}, which what it inherits from leaves to it"
    if problem := undeclared(found):
        return problem
    if problem := misfit(found, made_with(found), 0, constants_in(found)):
        return f"must take ({', '.join(made_with(found))}), but {problem}"
    if not inspect.isclass(found) or hasattr(found, "__getattr__"):
        return ""
    for name, arguments in METHODS:
        method = inspect.getattr_static(found, name, None)
        if method is None:
            return f"must have the method {name}({', '.join(arguments)}), but has none"
        if inspect.isfunction(method) and (problem := misfit(method, arguments, 1)):
            return f"must have the method {name}({', '.join(arguments)}), but {problem}"
    return ""


def is_draft(found: Any) -> bool:
    """Say whether a class is only begun: what its file searches can be looked at before it can train."""
    return inspect.isclass(found) and not any(hasattr(found, name) for name, _ in METHODS)


def misfit(function: Any, arguments: tuple[str, ...], before: int, named: Iterable[str] = ()) -> str:
    """Return why a function cannot be called with these arguments, `before` more ahead, and named ones."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return ""  # Python itself does not know
    try:
        signature.bind(*(None,) * before, *arguments, **dict.fromkeys(named))
    except TypeError as error:
        return f"takes {signature}: {error}"
    return ""


def file_and_line(found: Any) -> str:
    """Return file and line of a class or function, where they are known."""
    try:
        return f"{near(inspect.getsourcefile(found) or '')}:{inspect.getsourcelines(found)[1]}: "
    except (OSError, TypeError):
        return ""
