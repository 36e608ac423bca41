"""Write the rows of examples/classifier.yaml: small pictures of digits as seven bars, clean ones and worn ones.

`python examples/pictures.py` writes runs/pictures/clean.parquet and worn.parquet, within a few seconds.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SIDE = 16  # pixels
# place of each bar: rows and columns of its ends
BARS = [((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 1), (1, 1)), ((1, 0), (1, 1))]
BARS += [((1, 0), (2, 0)), ((1, 1), (2, 1)), ((2, 0), (2, 1))]
# the bars of each digit, from the top to the bottom
DIGITS = (
    "1110111",
    "0010010",
    "1011101",
    "1011011",
    "0111010",
    "1101011",
    "1101111",
    "1010010",
    "1111111",
    "1111011",
)


def picture(digit: int, worn: bool, rng: np.random.Generator) -> np.ndarray:
    """Return a picture `(16, 16)` of uint8; a worn one has faint bars, more noise and spots."""
    found = np.zeros((SIDE, SIDE))
    top, left = rng.integers(1, 4), rng.integers(2, 6)
    height, width = rng.integers(4, 6), rng.integers(4, 7)
    for bar, ((r0, c0), (r1, c1)) in zip(DIGITS[digit], BARS, strict=True):
        if bar == "1":
            rows = slice(top + r0 * height, top + r1 * height + 1)
            columns = slice(left + c0 * width, left + c1 * width + 1)
            found[rows, columns] = rng.uniform(0.25, 0.7) if worn else rng.uniform(0.7, 1.0)
    found += (0.25 if worn else 0.1) * rng.normal(size=found.shape)
    if worn:
        row, column = rng.integers(0, SIDE - 4, size=2)
        found[row : row + 4, column : column + 4] = rng.uniform()
    return (255 * found.clip(0, 1)).astype(np.uint8)


def write(folder: Path, name: str, rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(10, size=rows)
    pictures = np.stack([picture(label, name == "worn", rng) for label in labels])
    flat = pa.FixedSizeListArray.from_arrays(pa.array(pictures.reshape(-1)), SIDE * SIDE)
    pq.write_table(pa.table({"image": flat, "label": labels}), folder / f"{name}.parquet")


if __name__ == "__main__":
    place = Path("runs/pictures")
    place.mkdir(parents=True, exist_ok=True)
    write(place, "clean", 3000, seed=0)
    write(place, "worn", 3000, seed=1)
    print(f"wrote {place}/clean.parquet and worn.parquet")
