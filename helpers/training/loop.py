"""The parts of a training run: batches, optimizer, and what happens after each epoch.

Used by training.fit, which documents the arguments.
"""

import time
from functools import lru_cache, partial

import keras
import numpy as np
from keras import ops

from helpers.training import checkpoint as checkpoints


def optimizer(learning_rate, weight_decay, warmup, steps, momentum):
    """AdamW with warm-up and cosine decay; no decay of biases and batch-norm weights."""
    warm = round(warmup * steps)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if warm else learning_rate,
        max(1, steps - warm),
        warmup_target=learning_rate if warm else None,
        warmup_steps=warm,
    )
    averaging = {"use_ema": True, "ema_momentum": momentum} if momentum else {}
    adamw = keras.optimizers.AdamW(rate, weight_decay=weight_decay, **averaging)
    adamw.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return adamw


def loss(outputs, label_smoothing):
    losses = keras.losses
    kind = losses.BinaryCrossentropy if outputs == 1 else losses.CategoricalCrossentropy
    return kind(label_smoothing=label_smoothing)


def copies(images, rows, rng=None):
    """Images at rows (n,); of a list of copies the first, or with rng a random copy of each."""
    if not isinstance(images, list):
        return images[rows]
    if rng is None:
        return images[0][rows]
    picks = rng.integers(len(images), size=len(rows))
    return np.stack([images[pick][row] for pick, row in zip(picks, rows, strict=True)])


@lru_cache(maxsize=16)
def trainer(model, read, augment, trained, rates, label_smoothing, jit_compile):
    """(augmentation and model as one, compiled; the values of its optimizer before training).

    read: shape and dtype of an image; trained: what tells the variables that
    are trained; rates: arguments of `optimizer`. It shares the weights of the model. Kept, since
    TensorFlow never gives back the memory of a compiled training, and compiling takes a second.
    """
    first = keras.Input(read[:-1], dtype=read[-1])
    both = keras.Sequential([first, augment, model] if augment else [first, model])
    both.compile(
        optimizer(*rates),
        loss(model.output_shape[-1], label_smoothing),
        weighted_metrics=["accuracy"],
        jit_compile=jit_compile,
    )
    both.optimizer.build(both.trainable_variables)
    return both, checkpoints.values(both.optimizer.variables)


def batches(images, rows, targets, weights, batch_size, sampling, seed, epoch):
    """Endless batches (images, targets, weights); the order depends on seed and epoch alone.

    Rows of a batch are sorted, to read a memory map forwards. Batches are always full.
    """
    share = np.float64(weights[rows])
    share /= share.sum()
    n = -(-len(rows) // batch_size) * batch_size
    while True:
        rng = np.random.default_rng([seed, epoch])
        if sampling == "balanced":
            order = rng.choice(rows, n, p=share)
        else:
            order = np.resize(rng.permutation(rows), n)
        for part in np.sort(order.reshape(-1, batch_size), axis=1):
            used = np.ones_like(weights[part]) if sampling == "balanced" else weights[part]
            yield copies(images, part, rng), targets[part], used
        epoch += 1


def feed(*arguments):
    """The `batches` of these arguments in the form in which trainer.fit reads them fastest.

    Keras would give a generator to TensorFlow's autotuner, whose thread sleeps for spells that
    double each time. `fit` does not return before it wakes: a short one can take twice as long.
    """
    if keras.backend.backend() != "tensorflow":
        return batches(*arguments)
    import tensorflow as tf

    first = next(batches(*arguments))
    signature = tuple(tf.TensorSpec((None, *part.shape[1:]), part.dtype) for part in first)
    source = partial(batches, *arguments)
    options = tf.data.Options()
    options.autotune.enabled = False
    data = tf.data.Dataset.from_generator(source, output_signature=signature)
    return data.prefetch(1).with_options(options)


class EpochEnd(keras.callbacks.Callback):
    """After each epoch: check, validate the averaged weights, keep the best, save, maybe stop."""

    def __init__(self, validate, patience, checkpoint, verbose):
        super().__init__()
        self.validate, self.patience, self.verbose = validate, patience, verbose
        self.checkpoint = checkpoint
        self.state = {"history": [], "best_epoch": 0, "best_loss": np.inf, "stopped": False}
        self.best = None

    def resume(self, trainer):
        found = checkpoints.load(*self.checkpoint) if self.checkpoint else None
        if found:
            self.state, groups = found
            checkpoints.assign(trainer.variables, groups["model"])
            checkpoints.assign(trainer.optimizer.variables, groups["optimizer"])
            self.best = groups["best"]

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self._check_finite("loss", logs["loss"], epoch)
        trainer, optimizer = self.model, self.model.optimizer
        trainable = trainer.trainable_variables
        raw = checkpoints.values(trainable)
        rate = float(ops.convert_to_numpy(optimizer.learning_rate))
        optimizer.finalize_variable_values(trainable)  # the averages, if any
        # Own buffers, not the optimizer's: under JAX, predicting would use theirs up.
        checkpoints.assign(trainable, checkpoints.values(trainable))
        row = {"epoch": epoch + 1, "loss": logs["loss"], "accuracy": logs["accuracy"]}
        row |= self.validate() | {"learning_rate": rate}
        self._check_finite("validation loss", row.get("val_loss", 0.0), epoch)
        self._keep_best(row, trainer.layers[-1])
        checkpoints.assign(trainable, raw)
        row["seconds"] = time.perf_counter() - self.started
        row = {name: float(value) for name, value in row.items()} | {"epoch": epoch + 1}
        self.state["history"].append(row)
        waited = epoch + 1 - self.state["best_epoch"]
        self.state["stopped"] = self.patience is not None and waited >= self.patience
        trainer.stop_training = self.state["stopped"]
        if self.verbose:
            print("  ".join(f"{k} {v:.4g}" for k, v in row.items()))
        if self.checkpoint:
            path, key = self.checkpoint
            model, moments = trainer.variables, optimizer.variables
            groups = {"model": checkpoints.values(model), "best": self.best}
            groups["optimizer"] = checkpoints.values(moments)
            checkpoints.save(path, key, self.state, groups)

    def _keep_best(self, row, model):
        if row.get("val_loss", -np.inf) < self.state["best_loss"]:
            self.state["best_loss"] = float(row.get("val_loss", np.inf))
            self.state["best_epoch"] = row["epoch"]
            self.best = checkpoints.values(model.weights)

    def _check_finite(self, name, value, epoch):
        if not np.isfinite(value):
            kept = f"; {self.checkpoint[0]} holds the epoch before" if self.checkpoint else ""
            raise FloatingPointError(
                f"the {name} is {value} in epoch {epoch + 1}: training was stopped. Lower "
                f"learning_rate, or look for NaN in the images, weights or initial weights{kept}"
            )
