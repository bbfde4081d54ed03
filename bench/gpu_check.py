"""Is the GPU used, how fast is it, and how long will the full profile take? At most two minutes.

``make gpu-check``, or ``python -m bench.gpu_check``, on the machine and Keras backend of the run:
it trains the networks of 03 and 04 on one batch. It takes what ``python -m runner`` takes.
"""

import subprocess
import sys
import time
from importlib import util

import numpy as np

from bench.bench_training import flops, network, tuned
from helpers import backbones, data, features, splits
from helpers.results import ROOT
from runner import plan, provenance, series

import keras

SECONDS = 5  # of a measurement, at least
LEAST = 6.0  # compute capability: TensorFlow 2.21 is built for this and later ones
ASK = "nvidia-smi --query-gpu=compute_cap,memory.total,driver_version --format=csv,noheader"


def device():
    """(what is known of the device, is it a GPU, the precisions worth measuring on it)."""
    here, (no_gpu, found) = provenance.where(ROOT), subprocess.getstatusoutput(ASK)
    said = f"{here['backend']}, Keras {here['keras']}, computes on {here['device']}.\n"
    if no_gpu:
        return f"{said}nvidia-smi finds no GPU; the full profile wants one.", False, ["float32"]
    capability, memory, driver = found.split("\n")[0].split(", ")
    said += f"GPU with compute capability {capability}, {memory}, driver {driver}.\n"
    if idle := here["idle"]:
        if float(capability) < LEAST:
            idle = f"warning: the GPU is too old, compute capability {LEAST} is the least"
        elif keras.config.backend() == "jax" and not util.find_spec("jax_plugins"):
            idle = "warning: JAX is installed without CUDA, see docs/cloud.md"
        return f"{said}{idle}", False, ["float32"]
    if float(capability) < 8:
        return f"{said}No bfloat16, which needs 8.0: stay with float32.", True, ["float32"]
    return f"{said}It has bfloat16: compare the rows.", True, ["float32", "mixed_bfloat16"]


def per_second(job, of=np.median):
    """Calls of `job` a second, by the median of the seconds they take; the first one compiles."""
    job()
    start, taken = time.perf_counter(), []
    while len(taken) < 2 or time.perf_counter() - start < SECONDS:
        taken.append(-time.perf_counter())
        job()
        taken[-1] += time.perf_counter()
    return 1 / of(taken)


def training(model, batch):
    """Images a second of training steps, each of which brings its batch to the device."""
    x = np.zeros((batch, *model.input_shape[1:]), "uint8")
    y = np.zeros((batch, 1), "float32")
    return batch * per_second(lambda: model.train_on_batch(x, y))


def product(precision, size):
    """FLOPs a second of the fastest of some products of square matrices."""
    a = keras.ops.ones((size, size), precision)
    return 2 * size**3 * per_second(lambda: float(keras.ops.matmul(a, a)[0, 0]), min)


def work(p):
    """(trainings, images) of 03 or 04: an image counts once an epoch, and once a view predicted."""
    slides = data.slide_table()
    index = slides.loc[slides.index.repeat(slides.filter(like="n_").sum(axis=1))]
    index = index.assign(image_id=[f"{number:04d}" for number in range(len(index))])
    table = splits.make_splits(index, protocols=p["PROTOCOLS"])
    folds = [f for name in p["PROTOCOLS"] for f in splits.folds(index, table, name, p["FOLDS"])]
    known, test = sum(len(f.known) for f in folds), sum(len(f.test) for f in folds)
    times, parts = len(p["SEEDS"]), p.get("N_INNER", 0)
    if not parts:  # 03
        return times * len(folds), times * (p["EPOCHS"] * known + test)
    times *= len({"fine_tuned", "stain_augmented"} & {*p["RUNGS"]})
    views = len({"identity", *p["VIEWS"]} & {*features.SHAPE_KEEPING})
    # Each part of the known images is held once by the others; then all are learnt from.
    images = p["EPOCHS"] * parts * known + views * (known + test)
    return times * len(folds) * (parts + 1), times * images


def main(arguments=()):
    """Print what is known of the device, its speeds, and the time that a profile takes at most."""
    args = series.arguments(["--profile", "full", *arguments])
    given = plan.make_plan(args, ROOT)["parameters"]
    said, gpu, precisions = device()
    print(f"{said}\nProfile {args.profile}. FLOPs of networks are estimated from their layers.")
    for precision in precisions:
        peak = product(precision.removeprefix("mixed_"), 8192 if gpu else 2048)
        print(f"\n{precision}: a product of large matrices reaches {peak / 1e12:.3g} TFLOP/s")
        for name in ("03_baseline_cnn", "04_transfer_learning"):
            backbones.set_seed(0)
            keras.config.set_dtype_policy(precision)
            p, (trainings, images) = given[name], work(given[name])
            model = tuned(p) if "RUNGS" in p else network(p["IMAGE_SIZE"], filters=p["FILTERS"])
            rate = training(model, p["BATCH_SIZE"] if gpu else 4)  # a CPU would take too long
            speed = rate * flops(model) / 1e12
            print(f"{name}: {rate:.3g} images/s, {speed:.3g} TFLOP/s, {speed * 1e12 / peak:.0%}")
            print(f"  {trainings} trainings of {images / trainings:.0f} images, ", end="")
            print(f"at most {images / rate / 3600:.1f} hours")
    print("\nEarly stopping ends trainings of 03 sooner; all other work comes on top.")


if __name__ == "__main__":
    main(sys.argv[1:])
