"""Shoal: populations of models on a Ray cluster, imported as `shoal.policies`, `shoal.trainables` and so on.

Installed, the packages lie in this folder. In a checkout they lie beside it, and are found there.
"""

from pathlib import Path

from shoal import _old_names

_CHECKOUT = Path(__file__).resolve().parent.parent
if (_CHECKOUT / "policies" / "population.py").is_file() and not (Path(__file__).parent / "policies").exists():
    __path__.append(str(_CHECKOUT))
_old_names.serve(_CHECKOUT)
