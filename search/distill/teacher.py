"""The teachers of a run, loaded for all members of a worker."""

from shoal.search.config.run import Run
from shoal.search.distill.card import teacher_folder
from shoal.trainables.distill.elastic import Transformer
from shoal.trainables.distill.shared import SharedTeacher
from shoal.trainables.distill.teachers import Ensemble, load_teacher


def open_teacher(run: Run, device: str) -> tuple[SharedTeacher, Transformer]:
    """Load the teachers, and the first one's weights as a network that students are cut from."""
    chosen = run.distilling
    first, origin = load_teacher(teacher_folder(chosen.teacher), chosen.layer, device)
    assert origin is not None, "a teacher of another kind is refused before training"
    others = [load_teacher(teacher_folder(name), device=device)[0] for name in chosen.ensemble]
    teacher = Ensemble([first, *others]) if others else first
    hidden, logits = chosen.losses.hidden > 0, chosen.losses.logits > 0
    return SharedTeacher(teacher, chosen.cache_megabytes, hidden, logits), origin
