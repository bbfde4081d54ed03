"""Frozen features: a pretrained network runs once an image and view, and every notebook reuses it.

Ask for the whole index and choose rows afterwards: the cache is keyed by all the rows given.
"""

import zlib
from functools import cache, partial

import numpy as np
from tqdm import tqdm

from helpers import backbones
from helpers.images import cached, images_key, load_images
from helpers.stain import shift_stain

import keras

BATCH = 32  # images; one shape only, so that the graph is compiled once


def _jittered(images, number):
    draws = [np.random.default_rng([number, zlib.crc32(np.ascontiguousarray(i))]) for i in images]
    gain, offset = np.stack([draw.uniform(-JITTER, JITTER, (2, 3)) for draw in draws], axis=1)
    return keras.ops.convert_to_numpy(shift_stain(images, gain, offset))


# Exact views of images (n, height, width, channels). The last four exchange height and width.
VIEWS = {
    "identity": lambda images: images,
    "flip_lr": lambda images: images[:, :, ::-1],
    "flip_ud": lambda images: images[:, ::-1],
    "rot180": lambda images: images[:, ::-1, ::-1],
    "transpose": lambda images: images.swapaxes(1, 2),
    "rot90": lambda images: np.rot90(images, 1, axes=(1, 2)),  # anticlockwise
    "rot270": lambda images: np.rot90(images, 3, axes=(1, 2)),
    "anti_transpose": lambda images: images[:, ::-1, ::-1].swapaxes(1, 2),
}
SHAPE_KEEPING = tuple(VIEWS)[:4]
# Copies with the stain changed at random (Tellez et al. 2018), the same for an image and number.
JITTERED = tuple(f"jittered_{number}" for number in range(4))
JITTER = 0.1  # strength of that change, as in stain.StainJitter
VIEWS |= {name: partial(_jittered, number=number) for number, name in enumerate(JITTERED)}


def see(images, view):
    """Images (n, height, width, channels) under a view, one of VIEWS; ValueError for another."""
    if view not in VIEWS:
        raise ValueError(f"view {view!r} is unknown; allowed: {', '.join(VIEWS)}")
    return VIEWS[view](images)


def frozen_features(folder, index, size, backbone, weights="imagenet", views=("identity",)):
    """Global average of a backbone's last feature maps: float32 (n, views, d), rows as in `index`.

    folder: the data folder; size: [height, width] px at which images are decoded; backbone and
    weights as in `build_backbone`, which also raises the errors; views: names out of VIEWS.
    Cached by content, size, weights, view, float precision and Keras backend.
    """
    backbones.plain_settings()
    backbones.check_backbone(backbone, size, weights)

    @cache
    def network():  # takes seconds: built only where something has to be computed
        maps = backbones.build_backbone(backbone, (None, None), weights)
        pooled = keras.layers.GlobalAveragePooling2D(dtype="float32")(maps.output)
        return keras.Model(maps.input, pooled)

    width = backbones.LITE_WIDTH if backbone == backbones.LITE else network().output_shape[-1]
    key = [backbone, backbones.weights_key(backbone, weights, network)]

    def columns(view):
        def fill(array):
            _fill(array, network().predict_on_batch, load_images(folder, index, size), view)

        parts = _key(index, size, view, *key)
        return cached("features", parts, (len(index), width), np.float32, fill)

    return np.stack([columns(view) for view in _known(views)], axis=1)


def lower_maps(folder, index, size, backbone, weights, share, views=("identity",)):
    """Feature maps where `backbones.cut` cuts a backbone, a list with one array for each view.

    float16 (n, h, w, c), memory-mapped. The lower blocks run once an image and view; the upper ones
    can then be trained for many epochs and folds at a fraction of the cost ("bottleneck features").
    Arguments and key as in `frozen_features`, share as in `cut`; of a share of 1 these are the
    images. ValueError for a view that would change their shape.
    """
    backbones.plain_settings()
    if size[0] != size[1] and (turned := set(_known(views)) - {*SHAPE_KEEPING, *JITTERED}):
        raise ValueError(f"views {sorted(turned)} need square images; size is {list(size)}")
    if share == 1:
        return [_pictures(folder, index, size, view) for view in _known(views)]
    precision = keras.config.dtype_policy().name
    lower, *key = _lower(backbone, tuple(size), weights, share, precision)
    shape = (len(index), *lower.output_shape[1:])

    def maps(view):
        def fill(array):
            _fill(array, lower.predict_on_batch, load_images(folder, index, size), view)

        parts = _key(index, size, view, *key, len(lower.operations))
        return cached("maps", parts, shape, np.float16, fill)

    return [maps(view) for view in _known(views)]


@cache
def _lower(backbone, size, weights, share, precision):
    """The lower blocks and what names them, kept: stored maps are opened without building again."""
    network = backbones.build_backbone(backbone, size, weights)
    key = backbones.weights_key(backbone, weights, lambda: network)
    return backbones.cut(network, share)[0], backbone, key


def _pictures(folder, index, size, view):
    images = load_images(folder, index, size)
    if view not in JITTERED:
        return see(images, view)  # no copy

    def fill(array):
        _fill(array, np.rint, images, view)

    return cached("seen", _key(index, size, view), images.shape, np.uint8, fill)


def _known(views):
    if not len(views) or not set(views) <= set(VIEWS):
        raise ValueError(f"views {list(views)}: allowed are one or more of {', '.join(VIEWS)}")
    return list(views)


def _key(index, size, view, *parts):
    precision = keras.config.dtype_policy().name
    return [images_key(index, size), view, *parts, precision, keras.config.backend()]


def _fill(array, apply, images, view):
    """Write what `apply` makes of one view of the images, batch by batch."""
    for start in tqdm(range(0, len(images), BATCH), f"Features, {view}", leave=False, disable=None):
        batch = np.ascontiguousarray(see(images[start : start + BATCH], view))
        rows = len(batch)
        batch = np.concatenate([batch, np.repeat(batch[-1:], BATCH - rows, axis=0)])
        array[start : start + rows] = keras.ops.convert_to_numpy(apply(batch))[:rows]
