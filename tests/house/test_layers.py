"""Which package may import which: an arrow drawn the wrong way fails here."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = {"policies", "trainables", "cluster", "search"}
ALLOWED = {"policies": set(), "trainables": set(), "cluster": set(), "search": OURS}
FORBIDDEN = {
    "policies": {"os", "io", "pathlib", "time", "datetime", "random", "subprocess", "socket"},
    "trainables": {"ray"},
    "cluster": {"torch", "optuna"},
    "search": set(),
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{name.name}" for name in node.names}
    return found


def violations(package: str, names: set[str]) -> set[str]:
    tops = {name.split(".")[0] for name in names}
    upward = (tops & OURS) - ALLOWED[package] - {package}
    found = upward | {name for name in FORBIDDEN[package] if name in names or name in tops}
    # decisions are numpy alone: what may come in is named, and not what may not
    return found | (tops - {"numpy", "policies"} - sys.stdlib_module_names if package == "policies" else set())


@pytest.mark.parametrize("package", sorted(OURS))
def test_each_package_imports_only_what_it_may(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    assert {str(file): found for file in files if (found := violations(package, imports(file)))} == {}


def test_the_check_sees_a_planted_import() -> None:
    assert violations("policies", {"ray"}) == {"ray"}
    assert violations("policies", {"pyarrow", "numpy.typing", "policies.ranks", "math"}) == {"pyarrow"}
    assert violations("policies", {"os.path", "pathlib"}) == {"os", "pathlib"}
    assert violations("cluster", {"policies.population"}) == {"policies"}
    assert violations("trainables", {"ray.data"}) == {"ray"}


def test_policies_draw_no_global_random_numbers() -> None:
    for file in (ROOT / "policies").rglob("*.py"):
        calls = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute)
        }
        allowed = {"np.random.Generator", "np.random.PCG64", "np.random.SeedSequence", "np.random.default_rng"}
        assert {call for call in calls if call.startswith("np.random.")} <= allowed


def test_policies_import_numpy_alone() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in (ROOT / "policies").rglob("*.py")
    ]
    others = {"ray", "torch", "pyarrow", "scipy", "pandas", "search", "cluster", "trainables"}
    program = f"import sys, {', '.join(names)}; print({others} & set(sys.modules) or 'none')"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert len(names) > 50 and done.stdout.strip() == "none"
