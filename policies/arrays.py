"""The type of the arrays that policies count with."""

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
