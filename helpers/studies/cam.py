"""Class activation maps without gradients (Zhou et al. 2016), and how to doubt them.

A linear head on globally averaged features gives an image the logit ``mean(features) @ coef +
intercept``. The same head applied to each place of the feature maps is the class activation map:
its mean over the image is exactly the image's logit.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image
from scipy.stats import rankdata

from helpers.results import resolve


def load_heads(results: str | Path, protocol: str = "accession") -> dict:
    """Return the linear heads that notebook 04 fitted, one a fold, and the backbone under them.

    Keys: coef, a dict of fold to float (channels,); intercept, fold to float; backbone, weights
    (str); image_size, [height, width] in px. FileNotFoundError where 04 did not run.
    """
    path = resolve(results) / "models" / "04_cam.npz"
    if not path.exists():
        raise FileNotFoundError(f"{path.name} is not in {results}: run 04_transfer_learning first.")
    with np.load(path) as file:
        rows = np.flatnonzero(file["protocol"] == protocol)
        folds = file["fold"][rows].tolist()
        return {
            "coef": dict(zip(folds, file["coef"][rows], strict=True)),
            "intercept": dict(zip(folds, file["intercept"][rows].tolist(), strict=True)),
            "backbone": str(file["backbone"]),
            "weights": str(file["weights"]),
            "image_size": file["image_size"].tolist(),
        }


def class_maps(features: np.ndarray, coef: np.ndarray, intercept: np.ndarray | float) -> np.ndarray:
    """Return maps (n, h, w) in logits, above 0 where the evidence is for the positive class.

    ``features``: float (n, h, w, channels). ``coef``: (channels,), or (n, channels) with the head
    of each image's own fold; ``intercept`` a number or (n,).
    """
    coef = np.broadcast_to(coef, (len(features), features.shape[-1]))
    bias = np.broadcast_to(intercept, len(features))
    return np.einsum("nhwc,nc->nhw", features, coef) + bias[:, None, None]


def own_heads(heads: dict, folds, step: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return coef (n, channels) and intercept (n,) for images of these ``folds`` (n,).

    With ``step`` 1 each image gets the head of the next fold instead of its own.
    """
    order = sorted(heads["coef"])
    used = [order[(order.index(fold) + step) % len(order)] for fold in folds]
    coef = np.stack([heads["coef"][fold] for fold in used])
    return coef, np.array([heads["intercept"][fold] for fold in used])


def probability(maps: np.ndarray) -> np.ndarray:
    """Return the probability (n,) of the positive class that belongs to maps in logits."""
    return 1 / (1 + np.exp(-maps.mean((1, 2))))


def feature_maps(model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Return the feature maps (n, h, w, channels) of uint8 images (n, height, width, 3)."""
    starts = range(0, len(images), batch_size)
    parts = [model.predict_on_batch(images[start : start + batch_size]) for start in starts]
    return np.concatenate([np.asarray(part) for part in parts])


def untrained_maps(model, images: np.ndarray, batch_size: int, seed: int) -> np.ndarray:
    """Return :func:`feature_maps` after shuffling the numbers within each kernel of ``model``.

    This is the randomised model of the sanity check of Adebayo et al. 2018: what was learnt is
    gone, but each layer keeps its distribution of weights, so that activations stay in range. The
    weights are put back before returning.
    """
    learnt, rng = model.get_weights(), np.random.default_rng(seed)
    try:
        model.set_weights([rng.permuted(w, axis=None) if w.ndim > 1 else w for w in learnt])
        return feature_maps(model, images, batch_size)
    finally:
        model.set_weights(learnt)


def agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the rank correlation (Spearman) of two maps of each image, (n,); NaN for a flat map.

    1: the same places in the same order. 0: unrelated.
    """
    ranks = [rankdata(part.reshape(len(part), -1), axis=1) for part in (first, second)]
    ranks = [part - part.mean(1, keepdims=True) for part in ranks]
    norm = np.sqrt((ranks[0] ** 2).sum(1) * (ranks[1] ** 2).sum(1))
    dot = (ranks[0] * ranks[1]).sum(1)
    return np.divide(dot, norm, out=np.full(len(dot), np.nan), where=norm > 0)


def sanity(features: np.ndarray, shuffled: np.ndarray, heads: dict, folds, seed: int) -> dict:
    """Return the agreement (n,) of each image's map with that of other models, by their name.

    The check of Adebayo et al. 2018: ``features`` are those of the trained backbone, ``shuffled``
    those of one whose weights were shuffled. Maps of models that have learnt nothing must not
    agree; the head of another fold, fitted on mostly the same patients, should.
    """
    coef, intercept = own_heads(heads, folds)
    maps = class_maps(features, coef, intercept)
    mixed = np.random.default_rng(seed).permuted(coef, axis=1)
    others = {
        "head of another fold": class_maps(features, *own_heads(heads, folds, step=1)),
        "head shuffled": class_maps(features, mixed, intercept),
        "all weights shuffled": class_maps(shuffled, coef, intercept),
    }
    if len(heads["coef"]) == 1:
        del others["head of another fold"]
    return {name: agreement(maps, other) for name, other in others.items()}


def cell_shares(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the share of true pixels of ``mask``, bool (H, W), in each of height x width cells."""
    image = Image.fromarray(mask.astype("float32"))
    return np.asarray(image.resize((width, height), Image.Resampling.BOX))


def pointing(maps: np.ndarray, masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return (score, chance), each (n,): how well the strongest cell of a map hits the mask.

    The score is the share of masked pixels in the cell with the largest value: the chance that a
    point drawn in it hits, a pointing game (Zhang et al. 2018) for coarse maps. Chance is the share
    of masked pixels in the whole image.
    """
    shares = np.stack([cell_shares(mask, *maps.shape[1:]) for mask in masks])
    flat = shares.reshape(len(maps), -1)
    best = maps.reshape(len(maps), -1).argmax(1)
    return flat[np.arange(len(maps)), best], flat.mean(1)


def pairs(images: np.ndarray, maps: np.ndarray, titles: list[str]) -> tuple[list, list]:
    """Return each image followed by its :func:`overlay`, and their titles, for an image sheet."""
    shown = zip(images, overlay(images, maps), strict=True)
    return [one for pair in shown for one in pair], [t for own in titles for t in (own, "map")]


def overlay(images: np.ndarray, maps: np.ndarray, strength: float = 0.75) -> np.ndarray:
    """Return uint8 images (n, height, width, 3): grey tissue, coloured by the maps.

    Blue speaks for the negative class, red for the positive; colour is the stronger, the larger
    the absolute logit. One scale holds for all ``images``: the 98th percentile of all maps.
    """
    limit = max(float(np.quantile(np.abs(maps), 0.98)), 1e-6)
    height, width = images.shape[1:3]
    result = []
    for image, values in zip(images, maps, strict=True):
        smooth = Image.fromarray(values.astype("float32"))
        smooth = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)) / limit
        smooth = np.clip(smooth, -1, 1)
        grey = image.mean(-1, keepdims=True) / 255
        color = mpl.colormaps["RdBu_r"](smooth / 2 + 0.5)[..., :3]
        alpha = strength * np.sqrt(np.abs(smooth))[..., None]
        result.append((1 - alpha) * grey + alpha * color * (0.45 + 0.55 * grey))
    return (np.stack(result) * 255).round().astype("uint8")
