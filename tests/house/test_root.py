"""The import root: of all names a user might bear only `shoal` is taken; the old names still work."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("policies", "trainables", "cluster", "search")


def python(program: str, folder: Path) -> str:
    """Run a program in a folder, as a user's own script there would run."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr


def test_every_folder_with_modules_is_packaged() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    folders = {".".join(("shoal", *file.parent.relative_to(ROOT).parts)) for file in files}
    assert sorted(listed) == sorted({"shoal", *folders})


def test_an_old_name_is_the_same_module_and_warns(tmp_path) -> None:
    said = python(
        "import shoal, trainables.member, shoal.trainables.member; "
        "print(trainables.member is shoal.trainables.member, trainables.member.__spec__.name)",
        tmp_path,
    )
    assert "True shoal.trainables.member" in said, said
    assert "FutureWarning: import `shoal.trainables`: `trainables` alone goes away in version 0.3" in said


def test_a_users_own_modules_go_before_the_old_names(tmp_path) -> None:
    (tmp_path / "search.py").write_text("MINE = 1")
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.py").write_text("MINE = 2")
    (tmp_path / "policies").mkdir()  # a folder of data is no module
    said = python(
        "import shoal.search.load, search, policies.space; print(search.MINE, policies.space.__name__)",
        tmp_path,
    )
    assert "1 shoal.policies.space" in said, said
    (tmp_path / "cluster" / "__init__.py").write_text("")
    said = python("import shoal.search.load, cluster.mine; print(cluster.mine.MINE)", tmp_path)
    assert said.strip() == "2"
