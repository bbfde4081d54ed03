"""Training: weights, batches, early stopping, checkpoints, determinism, errors."""

import importlib.util
import itertools
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers as kl

from helpers import layers, training
from helpers.training import checkpoint, loop

N, TRAIN, VAL = 44, np.arange(30), np.arange(30, 44)
RNG = np.random.default_rng(0)
Y = np.tile([0, 1], N // 2)
ACCESSION = np.array([f"{label}-{i // 6}" for i, label in enumerate(Y)])
IMAGES = RNG.integers(60, 200, (N, 12, 16, 3), dtype=np.uint8)
IMAGES[Y == 1, :, :, 0] //= 2  # malignant: less red
OPTIONS = {"epochs": 4, "batch_size": 10, "learning_rate": 0.02, "patience": None, "seed": 1}


def build(outputs=1):
    training.set_seed(7)
    inputs = keras.Input((12, 16, 3))
    x = kl.Conv2D(4, 3, strides=2, name="conv")(kl.Rescaling(1 / 255)(inputs))
    x = kl.BatchNormalization(momentum=0.5, name="bn")(x)
    x = kl.Dropout(0.2)(kl.GlobalAveragePooling2D()(kl.ReLU()(x)))
    last = "sigmoid" if outputs == 1 else "softmax"
    return keras.Model(inputs, kl.Dense(outputs, activation=last, name="head")(x))


def train(model=None, images=IMAGES, y=Y, rows_val=VAL, **options):
    """(model, history without times) of a small training with dihedral and stain augmentation."""
    model = model or build()
    weights = training.balanced_weights(Y, ACCESSION, TRAIN, VAL)
    options = {"augment": layers.augmentation(0.05)} | OPTIONS | options
    history = training.fit(model, images, TRAIN, y, weights, rows_val, **options)
    return model, history.drop(columns="seconds")


@pytest.fixture(scope="module")
def trained():
    return train()


def outputs(model):
    return training.predict(model, IMAGES, np.arange(N))


def test_balanced_weights_worked_by_hand():
    y = np.array([0, 0, 0, 1, 1, 1])
    accession = np.array(["a", "a", "b", "c", "d", "e"])
    # Each class 3 of 6. Benign: a and b 1.5 each, so a's two images 0.75. Malignant: 1 each.
    expected = [0.75, 0.75, 1.5, 1, 1, 1]
    np.testing.assert_allclose(training.balanced_weights(y, accession), expected)
    parts = training.balanced_weights(y, accession, np.array([0, 2, 3]), np.array([4]))
    np.testing.assert_allclose(parts, [0.75, 0, 0.75, 1.5, 1, 0])


def test_batches_show_each_row_once_and_depend_on_seed_and_epoch_alone():
    rows, targets, weights = np.arange(5, 25), np.arange(N)[:, None], np.ones(N, "float32")

    def epoch(seed, number, n=4):
        source = loop.batches(IMAGES, rows, targets, weights, 5, "shuffle", seed, number)
        return [next(source) for _ in range(n)]

    first, both = epoch(0, 0), epoch(0, 0, 8)
    seen = np.concatenate([batch[1].ravel() for batch in first])
    assert sorted(seen) == list(rows)
    for images, target, _ in first:
        np.testing.assert_array_equal(images, IMAGES[target.ravel()])
    later = np.concatenate([batch[1].ravel() for batch in both[4:]])
    assert sorted(later) == list(rows)
    resumed = np.concatenate([batch[1].ravel() for batch in epoch(0, 1)])
    np.testing.assert_array_equal(resumed, later)
    assert not np.array_equal(later, seen)
    other = np.concatenate([batch[1].ravel() for batch in epoch(1, 0)])
    assert not np.array_equal(other, seen)


def test_feed_is_the_batches_without_autotuner():
    arguments = (IMAGES, np.arange(12), Y[:, None], np.ones(N, "float32"), 4, "shuffle", 0, 0)
    feed = loop.feed(*arguments)
    if keras.backend.backend() == "tensorflow":
        assert feed.options().autotune.enabled is False
    for fed, made in zip(itertools.islice(feed, 7), loop.batches(*arguments), strict=False):
        for one, other in zip(fed, made, strict=True):
            assert np.asarray(one).dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_last_batch_is_filled_up():
    source = loop.batches(IMAGES, np.arange(7), Y[:, None], np.ones(N), 4, "shuffle", 0, 0)
    assert [len(next(source)[0]) for _ in range(3)] == [4, 4, 4]


def test_balanced_sampling_draws_by_weight():
    weights = np.array([3, 1, 0, 0], "float32")
    source = loop.batches(IMAGES, np.arange(4), np.arange(4)[:, None], weights, 4, "balanced", 0, 0)
    drawn, used = zip(*[next(source)[1:] for _ in range(1000)], strict=True)
    share = np.bincount(np.ravel(drawn), minlength=4) / 4000
    np.testing.assert_allclose(share, [0.75, 0.25, 0, 0], atol=0.03)
    assert set(np.ravel(used)) == {1.0}


def test_learning_rate_warms_up_and_decays_to_zero():
    rate = loop.optimizer(0.1, 0.0, 0.2, 50, None)._learning_rate
    values = [float(keras.ops.convert_to_numpy(rate(step))) for step in (0, 5, 10, 30, 50)]
    np.testing.assert_allclose(values, [0, 0.05, 0.1, 0.05, 0], atol=1e-6)


def test_label_smoothing_worked_by_hand():
    value = float(loop.loss(1, 0.1)(np.float32([[1.0]]), np.float32([[0.9]])))
    assert value == pytest.approx(-(0.95 * np.log(0.9) + 0.05 * np.log(0.1)), rel=1e-5)


def test_prediction_pads_and_keeps_the_order():
    model, rows = build(), np.array([3, 1, 2, 40, 7])
    expected = model.predict_on_batch(IMAGES[rows])
    np.testing.assert_allclose(training.predict(model, IMAGES, rows, 2), expected, atol=1e-6)


def test_a_random_copy_is_read_in_training_and_the_first_otherwise():
    copies = [IMAGES, 255 - IMAGES]
    rows = np.arange(5)
    np.testing.assert_array_equal(loop.copies(copies, rows), IMAGES[:5])
    np.testing.assert_array_equal(loop.copies(IMAGES, rows, np.random.default_rng(0)), IMAGES[:5])
    drawn = loop.copies(copies, np.zeros(100, int), np.random.default_rng(0))
    first = (drawn == IMAGES[0]).all(axis=(1, 2, 3))
    assert (drawn[~first] == 255 - IMAGES[0]).all()
    assert 30 < first.sum() < 70
    seen, alone = (training.predict(build(), source, rows) for source in (copies, IMAGES))
    np.testing.assert_array_equal(seen, alone)
    _, history = train(images=copies)
    assert np.isfinite(history["val_loss"]).all()


def test_views_are_averaged_in_prediction():
    model, rows = build(), np.arange(7)
    flipped = training.predict(model, IMAGES[:, :, ::-1], rows)
    mean = (training.predict(model, IMAGES, rows) + flipped) / 2
    got = training.predict(model, IMAGES, rows, views=("identity", "flip_lr"))
    np.testing.assert_allclose(got, mean, atol=1e-6)


def test_the_rate_can_decay_over_more_epochs_than_are_run(trained):
    _, history = train(epochs=2, decay_epochs=OPTIONS["epochs"])
    np.testing.assert_array_equal(history["loss"], trained[1]["loss"][:2])
    np.testing.assert_array_equal(history["learning_rate"], trained[1]["learning_rate"][:2])


def test_a_model_that_is_trained_again_from_the_same_weights_does_the_same(trained):
    """The compiled training is kept: nothing of the first may reach the second."""
    model = build()
    start = training.values(model.variables)
    _, first = train(model)
    kept = loop.trainer.cache_info().hits
    training.assign(model.variables, start)
    _, second = train(model, augment=None)
    training.assign(model.variables, start)
    _, third = train(model, augment=None)
    assert loop.trainer.cache_info().hits == kept + 1
    assert first.equals(trained[1])
    assert third.equals(second)
    assert not second.equals(first)


def test_training_learns_and_reports_what_the_kept_weights_do(trained):
    model, history = trained
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    p = np.clip(outputs(model)[VAL, 0], 1e-7, 1 - 1e-7)
    weights = training.balanced_weights(Y, ACCESSION, VAL)[VAL]
    loss = np.average(-np.log(np.where(Y[VAL] == 1, p, 1 - p)), weights=weights)
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_same_seed_gives_bit_identical_results(trained):
    model, history = train()
    assert history.equals(trained[1])
    np.testing.assert_array_equal(outputs(model), outputs(trained[0]))


def interrupt_in_epoch(monkeypatch, number):
    """Let the validation of that epoch raise KeyboardInterrupt, as Ctrl-C would."""
    validate, calls = training._validate, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == number:
            raise KeyboardInterrupt
        return validate(*arguments)

    monkeypatch.setattr(training, "_validate", interrupted)


def test_interrupted_training_goes_on_to_the_same_result(tmp_path, trained, monkeypatch):
    file = tmp_path / "run.npz"
    with monkeypatch.context() as patch:
        interrupt_in_epoch(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint=file)
    with np.load(file) as saved:
        assert '"epoch": 2' in str(saved["meta"])
        assert '"epoch": 3' not in str(saved["meta"])
    model, history = train(checkpoint=file)
    assert history.equals(trained[1])
    np.testing.assert_array_equal(outputs(model), outputs(trained[0]))
    monkeypatch.setattr(keras.Sequential, "fit", None)  # a finished run trains nothing
    again, history = train(checkpoint=file)
    assert history.equals(trained[1])
    np.testing.assert_array_equal(outputs(again), outputs(trained[0]))


def test_broken_write_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    file = tmp_path / "run.npz"
    checkpoint.save(file, "key", {"epoch": 1}, {"model": [np.arange(3)]})

    def break_off(path, **arrays):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", break_off)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(file, "key", {"epoch": 2}, {"model": [np.arange(3) + 1]})
    state, groups = checkpoint.load(file, "key")
    assert state == {"epoch": 1}
    np.testing.assert_array_equal(groups["model"][0], [0, 1, 2])
    assert list(tmp_path.iterdir()) == [file]


def test_memory_is_kept_for_the_same_arguments_and_the_same_code(tmp_path, monkeypatch):
    calls = []

    def square(x):
        calls.append(x)
        return x**2

    def ask(folder, x):
        return training.memory(folder).cache(square)(x)

    monkeypatch.setattr(checkpoint, "ROOT", tmp_path)
    (tmp_path / "helpers").mkdir()
    code = tmp_path / "helpers" / "some.py"
    code.write_text("old")
    assert [ask(tmp_path / "kept", x) for x in (3, 3, 4)] == [9, 9, 16]
    assert calls == [3, 4]
    code.write_text("new")
    assert ask(tmp_path / "kept", 3) == 9
    assert calls == [3, 4, 3]
    assert [ask("", 3), ask("", 3)] == [9, 9]
    assert calls == [3, 4, 3, 3, 3]


def test_checkpoint_of_another_run_is_refused(tmp_path):
    file = tmp_path / "run.npz"
    checkpoint.save(file, "other", {}, {})
    with pytest.raises(ValueError, match="belongs to a run with other settings"):
        train(checkpoint=file)


def test_early_stopping_keeps_the_best_epoch():
    y = Y.copy()
    y[VAL] = 1 - y[VAL]  # validation contradicts training: it only gets worse
    model, history = train(y=y, epochs=12, patience=3)
    best = int(history.loc[history["val_loss"].idxmin(), "epoch"])
    assert len(history) == best + 3 < 12
    p = np.clip(outputs(model)[VAL, 0], 1e-7, 1 - 1e-7)
    weights = training.balanced_weights(Y, ACCESSION, VAL)[VAL]
    loss = np.average(-np.log(np.where(y[VAL] == 1, p, 1 - p)), weights=weights)
    assert loss == pytest.approx(history["val_loss"].min(), rel=1e-4)


def test_nan_stops_with_a_clear_message_and_spares_the_checkpoint(tmp_path, monkeypatch):
    file, source = tmp_path / "run.npz", loop.batches

    def poisoned(*arguments):
        for number, (images, targets, weights) in enumerate(source(*arguments)):
            yield images, targets, weights * (np.nan if number >= 6 else 1)

    monkeypatch.setattr(loop, "batches", poisoned)
    with pytest.raises(FloatingPointError, match=r"loss is nan in epoch 3.*Lower learning_rate"):
        train(checkpoint=file)
    with np.load(file) as saved:
        assert '"epoch": 2' in str(saved["meta"])
        assert all(np.isfinite(saved[name]).all() for name in saved.files if name != "meta")


def test_frozen_layers_keep_weights_and_statistics():
    model = build()
    for name in ("conv", "bn"):
        model.get_layer(name).trainable = False
    before = checkpoint.values(model.weights)
    train(model)
    kept = [np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)]
    assert kept == [True] * 6 + [False] * 2  # conv 2, batch norm 4; the head's 2 are trained


def test_classes_a_memory_map_and_no_validation(tmp_path):
    np.save(tmp_path / "images.npy", IMAGES)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    y = np.arange(N) % 3
    options = {"images": mapped, "y": y, "rows_val": [], "sampling": "balanced", "ema": None}
    model, history = train(build(3), label_smoothing=0.1, **options)
    assert list(history.columns) == ["epoch", "loss", "accuracy", "learning_rate"]
    np.testing.assert_allclose(outputs(model).sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "0 epochs on 30 training images"),
        ({"sampling": "random"}, "sampling 'random': allowed are 'shuffle' and 'balanced'"),
        ({"y": Y + 1}, "y holds int64 from 1 to 2: a model with 1 output"),
        ({"y": Y * 0.5}, "needs integers from 0 to 1"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        train(**options)


@pytest.mark.skipif(os.environ.get("KERAS_BACKEND") == "jax", reason="this is the inner run")
@pytest.mark.skipif(not importlib.util.find_spec("jax"), reason="jax is not installed")
def test_layers_resuming_and_freezing_hold_under_jax():
    files = [Path(__file__).with_name("test_layers.py"), Path(__file__)]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *files]
    command += ["-k", "test_layers or interrupted or frozen"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
