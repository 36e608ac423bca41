"""What must hold where a classifier sees images: models of timm, and changes by kornia."""

import importlib.util

from shoal.search.checks.objective import check_settings_section
from shoal.search.config.objective import class_settings
from shoal.search.config.run import Run
from shoal.search.errors import nearest
from shoal.trainables.classifier_settings import TURNED, ClassifierSettings

INSTALL_IMAGES = "pip install 'shoal[vision]'"
OF_IMAGES = ("shift", "flip", *TURNED)


def check_images(run: Run) -> str:
    """Return why a classifier cannot see or change its images, for `shoal.search.checks.run.CHECKS`."""
    if check_settings_section(run):
        return ""
    settings = class_settings(run)
    return check_timm(run, settings) or check_changes(run, settings)


def check_timm(run: Run, settings: ClassifierSettings) -> str:
    if settings.network != "timm":
        return ""
    if run.cluster.workers_per_member > 1:
        return (
            "cluster.workers_per_member: must be 1 with settings.network: timm, since workers would differ in "
            "the statistics of its norms"
        )
    if importlib.util.find_spec("timm") is None:
        return f"settings.network: timm needs the package timm ({INSTALL_IMAGES})"
    try:
        from shoal.trainables.timm_models import known_models, weights_file

        names = known_models()
    except (ImportError, RuntimeError) as error:
        told = str(error).partition("\n")[0]
        return f"settings.network: timm cannot be imported, since torch and torchvision may not fit: {told}"
    if settings.model not in names:
        close = nearest(settings.model, names)
        told = close if "did you mean" in close else "; timm.list_models() has them all"
        return f"settings.model: timm has no {settings.model}{told}"
    try:
        weights_file(settings.weights) if settings.weights else ""
    except ValueError as error:
        return f"settings.{str(error).rstrip('.')}"
    return ""


def check_changes(run: Run, settings: ClassifierSettings) -> str:
    """Refuse changes of images where there are none, and those of kornia where it is not."""
    asked = [name for name in OF_IMAGES if name in run.hyperparameters or getattr(settings, name)]
    if not asked:
        return ""
    place = "hyperparameters" if asked[0] in run.hyperparameters else "settings"
    if settings.network not in ("conv", "timm"):
        return f"{place}.{asked[0]}: changes images, which settings.network: {settings.network} does not see"
    by_kornia = next((name for name in asked if name in TURNED), "")
    if by_kornia and importlib.util.find_spec("kornia") is None:
        place = "hyperparameters" if by_kornia in run.hyperparameters else "settings"
        return f"{place}.{by_kornia}: needs the package kornia ({INSTALL_IMAGES})"
    return ""
