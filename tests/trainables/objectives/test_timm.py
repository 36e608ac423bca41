"""A classifier on a model of timm: weights of local files, statistics of norms, refusals."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from shoal.cluster import nests
from shoal.trainables.classifier_settings import ClassifierSettings
from shoal.trainables.timm_models import known_models, timm_model
from tests.helpers.classifiers import classifier, points
from tests.helpers.members import equal
from tests.helpers.vision import import_timm

SHAPE = (3, 32, 32)


@pytest.fixture(autouse=True)
def timm():
    import_timm()
    import timm

    return timm


def member(seed: int = 0, **more):
    return classifier(None, seed, None, SHAPE, network="timm", model="test_resnet", **more)


def test_weights_of_a_file_are_taken_and_its_head_is_not(timm, tmp_path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", pretrained=False, num_classes=7)
    save_file(whole.state_dict(), tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        made = member(weights=str(place))
        images = torch.from_numpy(points(3, 4, SHAPE)["x"])
        made.module.eval()
        whole.eval()
        expected = whole.forward_head(whole.forward_features(images), pre_logits=True)
        assert torch.allclose(made.module.body(images, 0.0), expected, atol=1e-5)
    assert made.module.head.weight.shape == (3, whole.num_features)


def test_it_trains_and_a_copy_has_the_statistics_of_its_norms() -> None:
    donor, receiver = member(0), member(1)
    assert donor.alone
    before = float(donor.train(2))
    after = float(donor.train(20))
    assert after < before
    receiver.load(nests.loads(nests.dumps(donor.state())), {})
    state = receiver.module.state_dict()
    for name, value in donor.module.state_dict().items():
        assert torch.equal(state[name], value), name
    assert state["body.model.bn1.num_batches_tracked"] == 22
    assert donor.evaluate() == receiver.evaluate()
    donor.train(3)
    receiver.train(3)
    assert equal(donor.state(), receiver.state())


def test_a_teacher_averages_over_norms_too() -> None:
    made = classifier(
        {"cross_entropy": {}, "future_teacher": {}}, 0, None, SHAPE, network="timm", model="test_resnet"
    )
    assert np.isfinite(made.train(2))


def test_a_file_that_is_none_of_the_model_is_refused(timm, tmp_path) -> None:
    other = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    state = other.state_dict()
    del state["bn1.weight"]
    save_file(state, tmp_path / "lacks.safetensors")
    with pytest.raises(ValueError, match=r"but \S+lacks.safetensors lacks bn1\.weight\.$"):
        timm_model("test_resnet", str(tmp_path / "lacks.safetensors"), 3)
    save_file({**other.state_dict(), "bn1.weight": torch.ones(7)}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"shapes, but bn1\.weight of \S+ has \(7,\) in place of \(32,\)\.$"):
        timm_model("test_resnet", str(tmp_path / "wide.safetensors"), 3)
    with pytest.raises(ValueError, match="must be a file of safetensors"):
        timm_model("test_resnet", str(tmp_path / "model.pth"), 3)
    with pytest.raises(ValueError, match="must be a file that exists"):
        timm_model("test_resnet", str(tmp_path / "gone.safetensors"), 3)


def test_weights_for_colours_serve_grey_images_and_more_channels(timm, tmp_path) -> None:
    torch.manual_seed(1)
    whole = timm.create_model("test_resnet", pretrained=False, num_classes=0)
    place = tmp_path / "model.safetensors"
    save_file(whole.state_dict(), place)
    grey, images = timm_model("test_resnet", str(place), 1), torch.rand(2, 1, 32, 32)
    whole.eval(), grey.eval()
    assert torch.allclose(grey(images), whole(images.expand(2, 3, 32, 32)), atol=1e-5)
    assert timm_model("test_resnet", str(place), 4).conv1[0].weight.shape[1] == 4
    save_file(grey.state_dict(), place)
    with pytest.raises(ValueError, match=r"shapes, but conv1\.0\.weight of"):
        timm_model("test_resnet", str(place), 3)


def test_names_are_timms() -> None:
    assert "resnet18" in known_models()
    with pytest.raises(ValueError, match="model must name a model of timm"):
        ClassifierSettings(network="timm")
    with pytest.raises(ValueError, match="model must name a model of timm"):
        ClassifierSettings(model="resnet18")
