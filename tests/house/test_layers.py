"""Which package may import which, in what order search/ is laid, and that nothing is imported in a circle."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OURS = ("policies", "trainables", "cluster", "search")
STANDARD = set(sys.stdlib_module_names)
# policies/ see no file, no clock, no process and no random numbers but those that they are given
PURE = STANDARD - {
    "os",
    "io",
    "pathlib",
    "shutil",
    "tempfile",
    "time",
    "datetime",
    "random",
    "subprocess",
    "socket",
}
ALLOWED = {
    "policies": PURE | {"numpy"},
    "trainables": STANDARD | {"numpy", "torch", "transformers", "tokenizers", "safetensors", "timm", "kornia"},
    "cluster": STANDARD
    | {"numpy", "pyarrow", "ray", "safetensors", "requests", "aiohttp", "grafana_api", "grpc", "pathspec"},
    "search": STANDARD
    | {"policies", "trainables", "cluster"}
    | {"numpy", "pyarrow", "torch", "ray", "optuna", "pydantic", "pydantic_core", "yaml", "typer", "rich"}
    | {
        "plotly",
        "safetensors",
        "lightgbm",
        "tensorboardX",
        "mlflow",
        "wandb",
        "IPython",
        "huggingface_hub",
        "PIL",
    },
}
# the rooms of search/, from the ground up: each may import those before it
FLOORS = (
    {"errors", "messages", "traces"},
    {"notation", "output"},
    {"config", "signals", "tokenizers"},
    {"checks", "decisions", "exported", "hidden_tokens", "models"},
    {"corpus"},
    {"selection"},
    {"distill"},
    {"members"},
    {"load"},
    {"records", "worker"},
    {"report", "driver", "track"},
    {"runs"},
    {"platform", "front"},
    {"cli"},
    {"program"},
)


def modules() -> dict[str, Path]:
    """Return our modules by the names that they are imported by; a package has the name of its folder."""
    files = [path for package in OURS for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        ".".join(("shoal", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in files
    }


def imports(source: str) -> Iterator[str]:
    """Yield each import of a module, also those within functions and those for types alone."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def arrows() -> dict[str, set[str]]:
    """Return which of our modules each one imports."""
    known = modules()
    found: dict[str, set[str]] = {}
    for name, path in known.items():
        wanted = {each if each in known else each.rpartition(".")[0] for each in imports(path.read_text())}
        found[name] = (wanted & known.keys()) - {name}
    return found


def circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """Return the modules of one circle, or nothing."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for each in sorted(graph.get(name, ())):
            if found := follow(each, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := follow(name, []))), [])


def forbidden(package: str, names: Iterable[str]) -> set[str]:
    tops = {name.removeprefix("shoal.").split(".")[0] for name in names}
    return tops - ALLOWED[package] - {package}


def floor(module: str) -> int:
    room = module.split(".")[2]
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("package", OURS)
def test_each_package_imports_only_what_it_may(package: str) -> None:
    files = [path for name, path in modules().items() if name.split(".")[1] == package]
    assert files
    found = {str(path): forbidden(package, imports(path.read_text())) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_the_check_sees_a_planted_import() -> None:
    assert forbidden("policies", imports("def late():\n    import ray.data")) == {"ray"}
    assert forbidden("policies", ["pyarrow"]) == {"pyarrow"}
    assert forbidden("policies", imports("from pathlib import Path")) == {"pathlib"}
    assert forbidden("cluster", ["shoal.policies.population"]) == {"policies"}
    assert forbidden("trainables", ["ray.data", "numpy"]) == {"ray"}


def test_nothing_is_imported_in_a_circle() -> None:
    assert circle(arrows()) == []


def test_the_check_sees_a_planted_circle() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_room_of_search_imports_a_higher_one() -> None:
    up = [
        (module, each)
        for module, wanted in arrows().items()
        for each in wanted
        if module.startswith("shoal.search.")
        and each.startswith("shoal.search.")
        and floor(each) > floor(module)
    ]
    assert up == []


def test_policies_draw_no_global_random_numbers() -> None:
    for file in (ROOT / "policies").rglob("*.py"):
        calls = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Attribute)
        }
        allowed = {"np.random.Generator", "np.random.PCG64", "np.random.SeedSequence", "np.random.default_rng"}
        assert {call for call in calls if call.startswith("np.random.")} <= allowed


def test_policies_import_without_ray_torch_or_pyarrow() -> None:
    names = [name for name in modules() if name.startswith("shoal.policies")]
    program = f"import sys, {', '.join(names)}; print({{'ray', 'torch', 'pyarrow'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
