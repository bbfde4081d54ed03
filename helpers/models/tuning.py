"""What fine-tuning needs of a backbone: its upper part, with a head on it."""

import keras
import numpy as np


def cut(model, share):
    """(lower, upper) of a flat backbone, cut where its graph is a single path.

    upper: about `share` (0 to 1) of the operations, counted from the top. Both share the layers and
    weights of `model`. ValueError for a share outside 0 to 1.
    """
    if not 0 < share < 1:
        raise ValueError(
            f"the share of the backbone to train is {share}; allowed: above 0, below 1"
        )
    operations = model.operations
    number = {id(operation): place for place, operation in enumerate(operations)}
    last_use = list(range(len(operations)))
    for place, operation in enumerate(operations):
        for source in keras.tree.flatten(operation.input) if place else []:
            parent = number[id(source._keras_history.operation)]
            last_use[parent] = max(last_use[parent], place)
    reach = np.maximum.accumulate([0, *last_use[:-1]])  # farthest use of what comes before
    paths = [place for place in range(1, len(operations) - 1) if reach[place] <= place]
    wanted = (1 - share) * len(operations)
    place = min(paths, key=lambda path: abs(path + 1 - wanted))
    bridge = operations[place].output
    return keras.Model(model.input, bridge), keras.Model(bridge, model.output)


def classifier(part, outputs=1, dropout=0.2):
    """Global average pooling, dropout and a logistic head on `part`, batch-norm statistics kept.

    part: a backbone or the upper part of one. The head starts at random; see `set_head`.
    """
    for layer in part.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False  # in Keras this means that its stored statistics are used
    x = keras.layers.GlobalAveragePooling2D(name="pooled")(part.output)
    x = keras.layers.Dropout(dropout, name="dropout")(x)
    activation = "sigmoid" if outputs == 1 else "softmax"
    head = keras.layers.Dense(outputs, activation=activation, dtype="float32", name="logistic")
    return keras.Model(part.input, head(x))


def set_head(model, coef, bias):
    """Set the head of a `classifier`: coef (d,) or (d, outputs), bias () or (outputs,).

    With those of a linear probe (Kumar et al. 2022) on the same pooled features, the network starts
    as good as the probe.
    """
    outputs = model.output_shape[-1]
    head = [np.reshape(coef, (-1, outputs)), np.reshape(bias, outputs)]
    model.get_layer("logistic").set_weights(head)
