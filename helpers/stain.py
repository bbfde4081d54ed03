"""Stain: optical density, its random change while training, and the colours of an image in numbers.

images: (n, height, width, 3), RGB, 0 to 255. `to_od`, `shift_stain` and `StainJitter` are
keras.ops: they run on any backend, eagerly or in a graph.
"""

import keras
import numpy as np
import pandas as pd
from keras import ops

from helpers.images import thread_map

# Rows: haematoxylin, eosin, DAB in optical density of (R, G, B) (Ruifrok and Johnston 2001).
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32")
HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED.astype("float64")).astype("float32")
# For numbers that are shown: decadic density of each value of a channel, 0 for white.
DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)
BACKGROUND_OD = 0.06  # decadic, above the slide's own white; found by eye on real images


def to_od(images):
    """Natural optical density, float32, -ln((value + 1) / 256): 0 for white, 5.55 for black.

    By the law of Beer and Lambert it is linear in the amount of stain.
    """
    return -ops.log((ops.cast(images, "float32") + 1.0) / 256.0)


def shift_stain(images, gain, offset):
    """Each stain (haematoxylin, eosin, DAB) of each image times 1 + gain, plus offset in `to_od`.

    gain, offset: (n, 3). Returns float32, clipped to 0 to 255. Only the change of density is
    computed, so gain = offset = 0 returns the images bit for bit.
    """
    return _shift(ops.convert_to_tensor(images), *(ops.cast(x, "float32") for x in (gain, offset)))


def _fused(function):
    """Under TensorFlow compiled by XLA into one loop: on a CPU three times faster."""
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, reduce_retracing=True)


@_fused
def _shift(images, gain, offset):
    images = ops.cast(images, "float32")
    mix = ops.matmul(ops.multiply(HED_FROM_RGB, gain[:, None, :]), RGB_FROM_HED)
    change = ops.einsum("nhwc,ncd->nhwd", to_od(images), mix)
    change = change + ops.matmul(offset, RGB_FROM_HED)[:, None, None]
    return ops.clip((images + 1.0) * ops.exp(-change) - 1.0, 0.0, 255.0)


@keras.saving.register_keras_serializable(package="breakhis")
class StainJitter(keras.layers.Layer):
    """Random change of the amount of each stain while training (Tellez et al. 2018).

    Each of haematoxylin, eosin and DAB is scaled by a factor from U(1 - s, 1 + s) and shifted by an
    optical density from U(-s, s), s the strength, drawn for each image. 0.05 is light, 0.2 is
    strong, 0 is the identity. Images 0 to 255 in, float32 0 to 255 out.
    """

    def __init__(self, strength=0.05, seed=0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not 0 <= strength < 1:
            raise ValueError(f"strength {strength} of the stain jitter: allowed is 0 to below 1")
        self.strength, self.seed = strength, seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        images = ops.cast(images, "float32")
        if not training or self.strength == 0:
            return images
        shape, s = (ops.shape(images)[0], 3), self.strength
        gain, offset = (keras.random.uniform(shape, -s, s, "float32", self.generator) for _ in "go")
        return shift_stain(images, gain, offset)

    def compute_output_spec(self, images, training=False):
        return keras.KerasTensor(images.shape, "float32")

    def get_config(self):
        return super().get_config() | {"strength": self.strength, "seed": self.seed}


def colour_features(images):
    """Colour without morphology: float64 (n, 12) of images uint8.

    In decadic optical density, by channel: mean, standard deviation, 95th percentile; then the
    three covariances of the channels.
    """

    def row(image):
        density = DENSITY[image].reshape(-1, 3)
        high, covariance = np.percentile(density, 95, axis=0), np.cov(density.T)
        off = covariance[np.triu_indices(3, 1)]
        return np.concatenate([density.mean(0), density.std(0), high, off])

    return np.array(thread_map(row, images, "Colours"), dtype=float).reshape(len(images), 12)


def image_statistics(images, index):
    """DataFrame, a row an image (uint8) in the order of `index`: what tells that it was ill taken.

    image_id; focus, the variance of the Laplacian of the grey image (Pertuz et al. 2013) at the
    size given; brightness, mean grey value, 0 to 255; background, share of pixels as light as the
    lightest of the same slide and magnification; od_red, od_green, od_blue, mean decadic optical
    density of the other pixels; haematoxylin, eosin, the amounts of stain that explain it.
    """
    white = pd.DataFrame(thread_map(_white, images, "White points"), index=index.index)
    white = white.groupby([index["slide"], index["magnification"]]).transform("min")
    pairs = list(zip(images, white.to_numpy(np.float32), strict=True))
    table = pd.DataFrame(thread_map(lambda pair: _statistics(*pair), pairs, "Statistics"))
    stains = RGB_FROM_HED[:2] / np.linalg.norm(RGB_FROM_HED[:2], axis=1, keepdims=True)
    residual = np.cross(*stains)  # a third colour at right angles to both takes what they leave
    unmix = np.linalg.inv(np.vstack([stains, residual / np.linalg.norm(residual)]))
    table[["haematoxylin", "eosin"]] = (table[["od_red", "od_green", "od_blue"]] @ unmix).iloc[
        :, :2
    ]
    table.insert(0, "image_id", index["image_id"].to_numpy())
    return table


def _white(image):
    """Decadic density of the lightest hundredth of the pixels, by channel: (3,)."""
    return DENSITY[np.percentile(image.reshape(-1, 3), 99, axis=0).astype(np.uint8)]


def _statistics(image, white):
    density = DENSITY[image]
    tissue = ((density - white) >= BACKGROUND_OD).any(-1)
    grey = image.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    colour = density[tissue if tissue.any() else ...].reshape(-1, 3).mean(0).astype(float)
    return {
        "focus": float((around - 4 * grey[1:-1, 1:-1]).var()),
        "brightness": float(grey.mean()),
        "background": 1 - float(tissue.mean()),
        **dict(zip(["od_red", "od_green", "od_blue"], colour, strict=True)),
    }
