"""The old names of the packages: `policies`, `trainables`, `cluster` and `search` without `shoal.`.

Classes that users wrote for version 0.1 import them, so they work until version 0.3, with a warning. If the
user has a module of the same name, that one is imported.
"""

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

OLD = ("policies", "trainables", "cluster", "search")


class _SameModule(Loader):
    """Loads the module of the new name, so that both names are one module."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(f"shoal.{spec.name}")
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has put the spec of the old name in its place


class _OldNames(MetaPathFinder):
    def __init__(self, checkout: Path):
        self.checkout = checkout

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        top = fullname.partition(".")[0]
        if top not in OLD:
            return None
        if fullname != top:
            ours = sys.modules.get(top) is sys.modules.get(f"shoal.{top}")
            return ModuleSpec(fullname, _SameModule()) if ours else None
        if self._is_the_users(PathFinder.find_spec(fullname)):
            return None
        warnings.warn(
            f"import `shoal.{top}`: `{top}` alone goes away in version 0.3", FutureWarning, stacklevel=2
        )
        return ModuleSpec(fullname, _SameModule(), is_package=True)

    def _is_the_users(self, spec: ModuleSpec | None) -> bool:
        """Say whether a module was found that is none of ours; a folder without Python files is no module."""
        if spec is None:
            return False
        if spec.origin is not None:
            return not Path(spec.origin).resolve().is_relative_to(self.checkout / spec.name)
        return any(any(Path(place).glob("*.py")) for place in spec.submodule_search_locations or ())


def serve(checkout: Path) -> None:
    """Let the old names be imported; packages in the folder `checkout` are ours, not the user's."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames(checkout))
