"""Views: an image turned or mirrored, cut into quarters, or with its stain changed.

Images are (n, height, width, 3), RGB, 0 to 255, uint8 or float.
"""

import zlib

import numpy as np
from keras import ops

from helpers.stain import normalise_stain, shift_stain

# The eight symmetries of a square, as (transpose, flip rows, flip columns), in this order.
_STEPS = {
    "identity": (False, False, False),
    "flip_lr": (False, False, True),
    "flip_ud": (False, True, False),
    "rot180": (False, True, True),
    "transpose": (True, False, False),
    "rot90": (True, True, False),  # anticlockwise, as numpy.rot90
    "rot270": (True, False, True),
    "anti_transpose": (True, True, True),
}
DIHEDRAL = tuple(_STEPS)  # all eight; the last four exchange height and width
SHAPE_KEEPING = DIHEDRAL[:4]
INVERSE = {name: name for name in DIHEDRAL} | {"rot90": "rot270", "rot270": "rot90"}
TILES = ("tile_0_0", "tile_0_1", "tile_1_0", "tile_1_1")  # quarters: row, column
JITTERED = tuple(f"jittered_{number}" for number in range(len(DIHEDRAL)))  # stain changed at random
VIEWS = (*DIHEDRAL, *TILES, *JITTERED, "normalised")
JITTER = 0.1  # strength of that change, as in layers.StainJitter
# Optical density of a typical H&E section, mean and deviation of R, G, B: round numbers that were
# fitted to no data, so that nothing is learnt from test images.
TYPICAL_OD = np.array([0.3, 0.5, 0.3], "float32"), np.array([0.15, 0.2, 0.12], "float32")


def views_for(height, width):
    """Names of the dihedral views that keep the shape: eight if square, else four."""
    return DIHEDRAL if height == width else SHAPE_KEEPING


def check_views(views):
    """Raise ValueError, with the allowed names, unless each view is known to `see`."""
    unknown = [view for view in views if not set(view.split("+")) <= set(VIEWS)]
    if unknown or not len(views):
        raise ValueError(f"views {list(unknown)} are unknown; allowed: {', '.join(VIEWS)}")


def stained(names, stain):
    """Views to learn from: `names`, as they are, "jittered" ones besides, or all "normalised"."""
    if stain == "normalised":
        return [f"normalised+{name}" for name in names]
    if stain == "jittered":
        return [*names, *(f"{JITTERED[place]}+{name}" for place, name in enumerate(names))]
    return list(names)


def dihedral(images, view):
    """One of the eight dihedral views of (..., height, width, channels), exact in any dtype.

    The views of the second half of DIHEDRAL give (..., width, height, channels).
    dihedral(dihedral(x, v), INVERSE[v]) is x.
    """
    if view not in _STEPS:
        raise ValueError(f"unknown view {view!r}: allowed are {', '.join(DIHEDRAL)}")
    transpose, rows, columns = _STEPS[view]
    if transpose:
        images = ops.swapaxes(images, -3, -2)
    axes = [axis for axis, wanted in ((-3, rows), (-2, columns)) if wanted]
    return ops.flip(images, axis=axes) if axes else ops.convert_to_tensor(images)


def see(images, view):
    """The view of a batch, an array: one of VIEWS, or several joined by "+", done in this order."""
    for step in view.split("+"):
        images = _see(images, step)
    return images


def _see(images, view):
    if view == "identity":
        return images
    if view.startswith("tile"):
        row, column = (int(part) for part in view.split("_")[1:])
        height, width = images.shape[1] // 2, images.shape[2] // 2
        return images[:, row * height :, column * width :][:, :height, :width]
    if view in JITTERED:
        return jittered(images, JITTERED.index(view))
    seen = normalise_stain(images, *TYPICAL_OD) if view == "normalised" else dihedral(images, view)
    return ops.convert_to_numpy(seen)


def jittered(images, number):
    """Images (n, h, w, 3) with jittered stain: float32, always the same for an image and number."""
    draws = [np.random.default_rng([number, zlib.crc32(np.asarray(one))]) for one in images]
    gain, offset = np.stack([draw.uniform(-JITTER, JITTER, (2, 3)) for draw in draws], axis=1)
    return ops.convert_to_numpy(shift_stain(images, gain, offset))


def smallest_side(size, views=("identity",)):
    """[height, width] px of the smallest view of images of that size."""
    share = 2 if any("tile" in view for view in views) else 1
    return [side // share for side in size]
