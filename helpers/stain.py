"""Optical density and the amounts of stain in an image: shift, normalise.

Images are (n, height, width, 3), RGB, 0 to 255, uint8 or float. Optical density (OD) is
-log((value + 1) / 256) of each channel, natural logarithm: 0 for white, 5.55 for black, and, by
the law of Beer and Lambert, linear in the amount of stain. All of it is keras.ops: it runs on
any backend, eagerly or in a graph.
"""

import keras
import numpy as np
from keras import ops

# Rows: haematoxylin, eosin, DAB in OD of (R, G, B), Ruifrok & Johnston 2001, as in scikit-image.
RGB_FROM_HED = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]], "float32")
HED_FROM_RGB = np.linalg.inv(RGB_FROM_HED.astype("float64")).astype("float32")
TISSUE_OD = 0.15  # mean OD over the channels below which a pixel counts as bare glass


def to_od(images):
    """Optical density, float32, of images 0 to 255 (uint8 or float)."""
    return -ops.log((ops.cast(images, "float32") + 1.0) / 256.0)


def from_od(od):
    """Images float32, clipped to 0 to 255, from optical density; inverse of to_od."""
    return ops.clip(256.0 * ops.exp(-od) - 1.0, 0.0, 255.0)


def shift_stain(images, gain, offset):
    """Scale and shift the amount of each stain (haematoxylin, eosin, DAB) of each image.

    gain, offset: (n, 3). Each stain becomes (1 + gain) * stain + offset, offset in units of OD.
    images: (n, height, width, 3), 0 to 255. Returns float32, clipped to 0 to 255.
    Only the change of OD is computed, so gain = offset = 0 returns the images bit for bit.
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


def normalise_stain(images, mean, std):
    """Match each image's tissue OD to a mean and a standard deviation, channel by channel.

    The method of Reinhard et al. 2001, in OD rather than in l-alpha-beta. Statistics come from
    tissue pixels (OD above TISSUE_OD), the map is applied to all; the scale is kept within a
    factor of 2, so that a nearly empty image is not blown up. Returns float32, 0 to 255.
    """
    own_mean, own_std = _statistics(images)
    scale = ops.clip(ops.divide(std, ops.maximum(own_std, 1e-3)), 0.5, 2.0)
    od = (to_od(images) - own_mean[:, None, None]) * scale[:, None, None]
    return from_od(ops.maximum(ops.add(od, mean), 0.0))


def _statistics(images):
    """Tissue mean and standard deviation of OD of each image: (n, 3) and (n, 3)."""
    od = to_od(images)
    tissue = ops.cast(ops.mean(od, axis=-1, keepdims=True) > TISSUE_OD, "float32")
    count = ops.maximum(ops.sum(tissue, axis=(1, 2)), 1.0)
    mean = ops.sum(od * tissue, axis=(1, 2)) / count
    spread = ops.square(od - mean[:, None, None]) * tissue
    return mean, ops.sqrt(ops.sum(spread, axis=(1, 2)) / count)
