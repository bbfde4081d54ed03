"""Frozen features: a pretrained network runs once an image and view, and every notebook reuses it.

Ask for the whole index and choose rows afterwards: the cache is keyed by all the rows given.
"""

import hashlib

import keras
import numpy as np
from tqdm import tqdm

from helpers import cache, models
from helpers.models import tuning
from helpers.views import JITTER, TYPICAL_OD, check_views, see, smallest_side


def frozen_features(
    folder, index, size, backbone, weights="imagenet", views=("identity",), batch_size=32
):
    """Global average of the last feature maps: float32 (n, views, d), rows as in `index`.

    folder: the data folder; size: [height, width] px at which images are decoded; backbone and
    weights as in `models.build_backbone`; views: names out of views.VIEWS (turns and mirror images,
    quarters of the image, stain jittered or normalised to TYPICAL_OD), or several of them one after
    the other, as in "normalised+rot180". Cached by image content,
    size, weights and view: a view that is known costs nothing. Raises the one-line errors of
    `build_backbone`, and ValueError for a view.
    """
    check_views(views)
    models.check_backbone(backbone, smallest_side(size, views), weights)
    network = _Network(backbone, weights)
    columns = []
    for view in views:
        file = cache.cache_folder() / f"features-{features_key(index, size, network, view)}.npy"

        def fill(target, view=view):
            images = cache.load_images(folder, index, size)
            _fill(target, network.model().predict_on_batch, images, view, batch_size)

        shape = (len(index), _width(file, network))
        columns.append(cache.cached(file, shape, np.float32, fill))
    return np.stack(columns, axis=1)


def lower_maps(folder, index, size, backbone, weights, share, views=("identity",), batch_size=32):
    """Feature maps where `tuning.cut` cuts the backbone: a list with one array for each view.

    Arrays are float16 (n, h, w, c), memory-mapped. The lower blocks run once an image and view; the
    upper ones can then be trained for many epochs and folds at a fraction of the cost. Arguments as
    in `frozen_features`, but views keep the shape of images; share as in `tuning.cut`.
    """
    network = models.build_backbone(backbone, size, weights)
    lower, _ = tuning.cut(network, share)
    weighed = models.weights_key(backbone, weights, lambda: network)
    shape = (len(index), *lower.output_shape[1:])

    def maps(view):
        def fill(target):
            images = cache.load_images(folder, index, size)
            _fill(target, lower.predict_on_batch, images, view, batch_size)

        key = _key("maps", index, size, view, backbone, weighed, str(len(lower.operations)))
        return cache.cached(cache.cache_folder() / f"maps-{key}.npy", shape, np.float16, fill)

    return [maps(view) for view in views]


def seen_images(folder, index, size, view):
    """Images under a view that keeps their shape, one of views.VIEWS: uint8 (n, height, width, 3).

    The array is cached and memory-mapped, as that of cache.load_images.
    """
    if view == "identity":
        return cache.load_images(folder, index, size)

    def fill(target):
        images = cache.load_images(folder, index, size)
        _fill(target, np.rint, images, view, batch_size=32)

    file = cache.cache_folder() / f"seen-{_key('seen', index, size, view)}.npy"
    return cache.cached(file, (len(index), *size, 3), np.uint8, fill)


def _key(kind, index, size, view, *parts):
    """Key of what is computed from a view of images: their pixels and order, size, view, parts."""
    stain = f"{JITTER} {TYPICAL_OD}"  # what the views of other stain are made with
    parts = [kind, cache.images_key(index, size), view, stain, *parts]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def features_key(index, size, network, view):
    """Key of the content: pixels of the rows, size, backbone, weights and view."""
    return _key("features", index, size, view, network.name, network.key())


class _Network:
    """A backbone that is built only when something has to be computed."""

    def __init__(self, name, weights):
        self.name, self.weights, self._model = name, weights, None

    def model(self):
        if self._model is None:
            maps = models.build_backbone(self.name, (None, None), self.weights)
            pooled = keras.layers.GlobalAveragePooling2D(name="pool")(maps.output)
            self._model = keras.Model(maps.input, pooled)
        return self._model

    def key(self):
        return models.weights_key(self.name, self.weights, self.model)


def _width(file, network):
    """Features of an image, d: from a cached file if it can be read, as a network takes seconds."""
    try:
        return np.load(file, mmap_mode="r").shape[-1]
    except (FileNotFoundError, ValueError, EOFError):
        return network.model().output_shape[-1]


def _fill(target, apply, images, view, batch_size):
    """Write what `apply` makes of one view of the images into the array file, batch by batch."""
    out = np.lib.format.open_memmap(target, "r+")
    starts = range(0, len(images), batch_size)
    for start in tqdm(starts, desc=f"Features, {view}", delay=2, leave=False):
        batch = np.ascontiguousarray(see(np.asarray(images[start : start + batch_size]), view))
        rows = len(batch)
        if rows < batch_size:  # one shape only, so that the graph is compiled once
            batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - rows, axis=0)])
        out[start : start + rows] = np.asarray(apply(batch))[:rows]
    out.flush()
