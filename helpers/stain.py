"""Stain: optical density, its random change while training, and colour in twelve numbers.

images: (n, height, width, 3), RGB, 0 to 255. `to_od`, `shift_stain` and `StainJitter` are
keras.ops: they run on any backend, eagerly or in a graph.
"""

import numpy as np

from helpers.images import thread_map

import keras
from keras import ops

# Rows: haematoxylin, eosin, DAB in optical density of (R, G, B) (Ruifrok and Johnston 2001).
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32")
HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED.astype("float64")).astype("float32")


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

    In optical density, decadic (0 for white, 2.4 for black), by channel: mean, standard deviation,
    95th percentile; then the three covariances of the channels.
    """
    table = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)

    def row(image):
        density = table[image].reshape(-1, 3)
        high, covariance = np.percentile(density, 95, axis=0), np.cov(density.T)
        off = covariance[np.triu_indices(3, 1)]
        return np.concatenate([density.mean(0), density.std(0), high, off])

    return np.array(thread_map(row, images, "Colours"), dtype=float).reshape(len(images), 12)
