"""Training of Keras models on memory-mapped images: balanced, resumable, reproducible.

    weights = balanced_weights(y, accession, train, val)
    history = fit(model, images, train, y, weights, val, epochs=20, augment=augmentation())
    p = predict(model, images, test)

Rows are integer positions into images; y, accession and weights are aligned with images.
"""

import keras
import numpy as np
import pandas as pd

from helpers.probe import patient_weights
from helpers.training import loop
from helpers.training.checkpoint import assign, memory, values  # noqa: F401, for notebook 04
from helpers.training.checkpoint import key as key_of_run
from helpers.views import dihedral


def set_seed(seed, deterministic=True):
    """Seed Python, NumPy and the backend; deterministic makes runs bit-identical, 10-25% slower.

    Under TensorFlow the seed alone is not enough, even on a CPU: its operations must be told.
    Call it before any model is built. It holds for the whole process.
    """
    keras.utils.set_random_seed(seed)
    if deterministic and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    if deterministic and keras.backend.backend() == "torch":
        import torch

        torch.use_deterministic_algorithms(True)


def balanced_weights(y, accession, *parts):
    """Sample weights by which classes weigh the same, and patients the same within a class.

    y, accession: (n,). parts: row arrays (train, val), each balanced on its own, mean weight 1;
    none: all rows are one part. Returns float32 (n,), 0 for rows in no part.
    """
    y, accession = np.asarray(y), np.asarray(accession)
    weights = np.zeros(len(y), "float32")
    for rows in parts or [np.arange(len(y))]:
        weights[rows] = patient_weights(y[rows], accession[rows])
    return weights


def predict(model, images, rows, batch_size=32, views=("identity",)):
    """Outputs of the model, float32 (len(rows), n_outputs), for the images at rows.

    images: as in fit; of several copies the first is used. views: of views.views_for, over which
    outputs are averaged. Batches have one shape (the last is filled up), so that nothing is
    compiled twice.
    """
    rows = np.asarray(rows)
    batch_size = min(batch_size, len(rows))
    filled = np.resize(rows, -(-len(rows) // batch_size) * batch_size)
    parts = []
    for part in filled.reshape(-1, batch_size):
        batch = loop.copies(images, part)
        seen = [model.predict_on_batch(dihedral(batch, view)) for view in views]
        parts.append(np.mean([np.asarray(one, "float32") for one in seen], axis=0))
    return np.concatenate(parts)[: len(rows)]


def fit(
    model,
    images,
    rows_train,
    y,
    weights,
    rows_val,
    *,
    epochs,
    batch_size=32,
    learning_rate=1e-3,
    decay_epochs=None,
    weight_decay=1e-4,
    warmup=0.1,
    augment=None,
    sampling="shuffle",
    ema=0.99,
    label_smoothing=0.0,
    patience=5,
    checkpoint=None,
    seed=0,
    jit_compile="auto",
    verbose=0,
):
    """Train model in place and leave the weights of its best validation epoch in it.

    model: ends in probabilities, 1 output (sigmoid) for y in {0, 1}, else one a class (softmax).
    images: (n, height, width, 3), an array or a memory map, read batch by batch as it is; or a list
    of such arrays, copies: a random copy of each image is read each time, validation reads the
    first.
    y: int (n,). weights: (n,) as from balanced_weights, or None.
    rows_val may be empty: then all epochs are run and the last weights are kept.
    learning_rate: peak of a cosine decay, after a linear warm-up over that share of steps; it gets
    to 0 after `decay_epochs`, None: after `epochs`.
    augment: layer before the model while training (layers.augmentation), or None. Its random draws
    start from seed, and those of dropout in the model.
    sampling: "shuffle", each image once an epoch, weights in the loss; "balanced", drawn with
    the weights as probabilities (patient-balanced sampling), all the same in the loss.
    ema: momentum of the average of weights that is validated and kept; None for none. Its window
    is cut to half an epoch, so that a short run is not dominated by the initial weights.
    patience: epochs without a better validation loss before it stops; None: never.
    checkpoint: file (.npz), replaced atomically after each epoch. Where it exists, training goes
    on from it; if it is finished, nothing is trained. Under TensorFlow and JAX the result is the
    same as without a break (torch draws dropout from a state that is not kept).
    jit_compile: XLA, as in keras.Model.compile. verbose: 0, or 2 for one line an epoch.

    Returns the history, a row an epoch: epoch (from 1), loss, accuracy, val_loss, val_accuracy
    (weighted as training is, by the averaged weights), learning_rate, seconds.
    Raises FloatingPointError when the loss is not finite, ValueError for wrong arguments.
    """
    rows_train, rows_val = np.asarray(rows_train, int), np.asarray(rows_val, int)
    weights = np.ones(len(y), "float32") if weights is None else np.float32(weights)
    targets = _targets(y, model.output_shape[-1])
    _check(model, epochs, rows_train, weights, sampling, augment)
    steps = -(-len(rows_train) // batch_size)
    momentum = ema and min(ema, max(0.0, 1 - 2 / steps))
    first = loop.copies(images, rows_train[:1])
    trainer, fresh = loop.trainer(
        model,
        (*first.shape[1:], first.dtype.name),
        augment,
        tuple(map(id, model.trainable_variables)),
        (learning_rate, weight_decay, warmup, steps * (decay_epochs or epochs), momentum),
        label_smoothing,
        jit_compile,
    )
    assign(trainer.optimizer.variables, fresh)
    states = [v for v in trainer.variables if v.name == "seed_generator_state"]
    for number, state in enumerate(states):
        state.assign(np.array([seed + number, 0], "uint32"))
    settings = [
        epochs,
        decay_epochs,
        batch_size,
        learning_rate,
        weight_decay,
        warmup,
        sampling,
        ema,
    ]
    settings += [label_smoothing, patience, seed, [v.shape for v in trainer.trainable_variables]]
    arrays = [rows_train, rows_val, targets, weights, first]
    epoch_end = loop.EpochEnd(
        lambda: _validate(model, images, rows_val, targets, weights, batch_size),
        patience,
        (checkpoint, key_of_run(settings, arrays)) if checkpoint else None,
        verbose,
    )
    epoch_end.resume(trainer)
    done = len(epoch_end.state["history"])
    if done < epochs and not epoch_end.state["stopped"]:
        train = (images, rows_train, targets, weights, batch_size, sampling, seed, done)
        trainer.fit(
            loop.feed(*train),
            steps_per_epoch=steps,
            initial_epoch=done,
            epochs=epochs,
            callbacks=[epoch_end],
            shuffle=False,
            verbose=0,
        )
    assign(model.weights, epoch_end.best)
    return pd.DataFrame(epoch_end.state["history"])


def _targets(y, outputs):
    """Labels as float32 (n, outputs): as they are for 1 output, else one-hot."""
    y = np.asarray(y)
    top = max(outputs, 2) - 1
    if y.dtype.kind not in "iub" or y.min() < 0 or y.max() > top:
        raise ValueError(
            f"y holds {y.dtype} from {y.min()} to {y.max()}: a model with {outputs} output(s) "
            f"needs integers from 0 to {top}"
        )
    y = y.astype(int)
    return np.float32(y[:, None] if outputs == 1 else np.eye(outputs)[y])


def _check(model, epochs, rows_train, weights, sampling, augment):
    if epochs < 1 or not len(rows_train):
        raise ValueError(f"{epochs} epochs on {len(rows_train)} training images: both must be > 0")
    if sampling not in ("shuffle", "balanced"):
        raise ValueError(f"sampling {sampling!r}: allowed are 'shuffle' and 'balanced'")
    if not weights[rows_train].sum() > 0:
        raise ValueError("the weights of the training images add up to 0 or NaN")
    if augment and "int" in keras.backend.standardize_dtype(model.inputs[0].dtype):
        raise ValueError("augmented images are float: give the model an Input of dtype float32")


def _validate(model, images, rows, targets, weights, batch_size):
    """val_loss and val_accuracy, weighted, without label smoothing; {} without rows."""
    if not len(rows):
        return {}
    p, t, w = predict(model, images, rows, batch_size), targets[rows], weights[rows]
    if t.shape[1] == 1:
        p, t = np.hstack([1 - p, p]), np.hstack([1 - t, t])
    loss = -np.log(np.clip((p * t).sum(1), 1e-7, 1))
    right = p.argmax(1) == t.argmax(1)
    return {
        "val_loss": np.average(loss, weights=w),
        "val_accuracy": np.average(right, weights=w),
    }
