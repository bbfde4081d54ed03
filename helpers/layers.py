"""Augmentation as layers, on any Keras backend.

Images are (n, height, width, 3), RGB, 0 to 255, uint8 or float. The layers run in the graph, on
whole batches; random ones are the identity outside training.
"""

import keras
from keras import ops

from helpers.stain import shift_stain


@keras.saving.register_keras_serializable(package="breakhis")
class RandomDihedral(keras.layers.Layer):
    """Random dihedral view of each image while training, the identity otherwise.

    Square inputs get all eight views. Others get the four that keep the shape (identity, both
    flips, rotation by 180 degrees): a rotation by 90 degrees would need a crop, and lose tissue.
    """

    def __init__(self, seed=0, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.seed = seed
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=False):
        if not training:
            return images
        n, (height, width) = ops.shape(images)[0], images.shape[1:3]
        coins = keras.random.uniform((3, n), seed=self.generator) < 0.5
        if height == width:
            images = _choose(ops.swapaxes(images, 1, 2), images, coins[0])
        return _flip(images, coins[1], coins[2])

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return super().get_config() | {"seed": self.seed}


# On a CPU, ops.where with a flag an image and ops.flip of four axes are several times slower than
# to take rows of arrays that hold both.


def _choose(first, second, flags):
    """Each image of a batch from first where its flag (n,) is set, else from second."""
    n = ops.shape(second)[0]
    rows = ops.arange(n) + n * ops.cast(ops.logical_not(flags), "int32")
    return ops.take(ops.concatenate([first, second], axis=0), rows, axis=0)


def _flip(images, mirror, upturn):
    """Each image with its columns reversed where mirror (n,), its rows where upturn (n,) is set."""
    n, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
    lines = ops.reshape(images, (-1, width, channels))
    both = ops.concatenate([lines, ops.flip(lines, axis=1)], axis=0)
    row = ops.arange(height)
    row = ops.where(upturn[:, None], height - 1 - row, row)
    start = height * (ops.arange(n) + n * ops.cast(mirror, "int32"))
    chosen = ops.take(both, ops.reshape(start[:, None] + row, (-1,)), axis=0)
    return ops.reshape(chosen, (-1, height, width, channels))


@keras.saving.register_keras_serializable(package="breakhis")
class StainJitter(keras.layers.Layer):
    """Random change of the amount of each stain while training (Tellez et al. 2018).

    strength s: each of haematoxylin, eosin and DAB is scaled by a factor from U(1 - s, 1 + s)
    and shifted by an OD from U(-s, s), drawn for each image. 0.05 is light, 0.2 is strong;
    0 is the identity. Images 0 to 255 in, float32 0 to 255 out.
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
        limits = {"minval": -self.strength, "maxval": self.strength, "seed": self.generator}
        shape = (ops.shape(images)[0], 3)
        gain = keras.random.uniform(shape, **limits)
        return shift_stain(images, gain, keras.random.uniform(shape, **limits))

    def compute_output_spec(self, images, training=False):
        return keras.KerasTensor(images.shape, "float32")

    def get_config(self):
        return super().get_config() | {"strength": self.strength, "seed": self.seed}


def augmentation(stain=0.0, dihedral=True, seed=0):
    """The series' augmentation as one layer: dihedral views, then stain jitter.

    Give it to training.fit as augment. With stain = 0 and dihedral = False it is the identity.
    """
    layers = [RandomDihedral(seed)] if dihedral else []
    layers += [StainJitter(stain, seed + 1)] if stain else []
    return keras.Sequential(layers or [keras.layers.Identity()], name="augmentation")
