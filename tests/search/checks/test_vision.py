"""What a file may say of models of images and of their changes; whatever cannot be is one line."""

import importlib.util
from pathlib import Path

import pytest

from shoal.search.config.places import with_places
from shoal.search.errors import InputError
from shoal.search.load import load_run
from tests.helpers.vision import import_timm
from tests.search.checks.test_objective import FILE

IMAGES = FILE.replace("shape: [6]", "shape: [3, 32, 32]")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("run.yaml").write_text(IMAGES)


def test_a_model_and_changes_may_be_named() -> None:
    import_timm()
    run = load_run("run.yaml", ["settings={network: timm, model: resnet18, rotate: 10, saturation: 0.3}"])
    assert run.settings["model"] == "resnet18"


def test_changes_of_images_may_be_searched() -> None:
    load_run("run.yaml", ["settings.network=conv", "hyperparameters.zoom={kind: float, low: 0, high: 0.3}"])


def test_the_file_of_weights_is_a_place_that_workers_find() -> None:
    run = load_run("run.yaml")
    named = run.model_copy(
        update={"settings": {"network": "timm", "model": "resnet18", "weights": "w.safetensors"}}
    )
    changed = with_places(named, lambda key, place: f"{key} at {place}")
    assert changed.settings["weights"] == "settings.weights at w.safetensors"
    assert with_places(run, lambda key, place: place).settings == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            ["settings={network: timm, model: resnet81}"],
            r"settings\.model: timm has no resnet81; did you mean `resn",
        ),
        (["settings={network: timm}"], "model must name a model of timm with network: timm, and only then"),
        (
            ["settings={network: timm, model: resnet18, weights: w.pth}"],
            r"settings\.weights must be a file of safe",
        ),
        (
            ["settings={network: timm, model: resnet18}", "cluster.workers_per_member=2"],
            r"cluster\.workers_per_member: must be 1 with settings\.network: timm",
        ),
        (
            ["settings={rotate: 10}"],
            r"settings\.rotate: changes images, which settings\.network: mlp does not see",
        ),
        (
            ["hyperparameters.flip={kind: float, low: 0, high: 0.5}"],
            r"hyperparameters\.flip: changes images, which settings\.network: mlp does not see",
        ),
        (["settings={network: conv, rotate: 200}"], "rotate: must be from 0 to 180 degrees"),
        (
            ["settings.network=conv", "hyperparameters.zoom={kind: float, low: 0, high: 1.5}"],
            "zoom must be at least 0 and below 1",
        ),
    ],
)
def test_what_cannot_be_is_one_line(changes: list[str], said: str) -> None:
    if "timm, model" in changes[0]:
        import_timm()
    with pytest.raises(InputError, match=said) as raised:
        load_run("run.yaml", changes)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("package", "changes"),
    [
        ("timm", ["settings={network: timm, model: resnet18}"]),
        ("kornia", ["settings={network: conv, rotate: 10}"]),
    ],
)
def test_a_missing_package_is_named_with_what_brings_it(monkeypatch, package: str, changes: list[str]) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == package else found(name, *more)
    )
    with pytest.raises(InputError, match=rf"needs the package {package} \(pip install 'shoal\[vision\]'\)"):
        load_run("run.yaml", changes)
