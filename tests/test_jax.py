"""The same notebooks on another Keras backend: JAX, on the CPU."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from conftest import ROOT

TRAINING = "03_baseline_cnn", "04_transfer_learning"


def test_the_trainings_run_on_jax_their_pages_say_so_and_its_probes_agree(smoke_run, tmp_path):
    reports = Path(shutil.copytree(smoke_run.reports, tmp_path / "reports"))
    command = [sys.executable, "-m", "runner", "--profile", "smoke", "--run", "smoke"]
    command += ["--reports", str(reports), "--notebooks", " ".join(TRAINING)]
    small = ["FOLDS=[1]", "TRAINED_SHARE=0.02", "SIZES=[]"]  # XLA is slow on a CPU
    command += [word for setting in small for word in ("-p", setting)]
    env = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    env.pop("BREAKHIS_DIR", None)
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    record = json.loads((reports / "smoke/run.json").read_text())["notebooks"]
    assert record["02_patient_split"]["backend"].startswith("TensorFlow ")
    for name in TRAINING:
        assert record[name]["backend"].startswith("JAX ")
        assert record[name]["backend"] in (reports / f"smoke/{name}.html").read_text()
    tables = [
        pd.read_parquet(folder / "results/predictions/04_transfer_learning.parquet")
        for folder in (smoke_run.folder, reports / "smoke")
    ]
    theirs, ours = (table.query("model == 'probe' and fold == 1") for table in tables)
    assert theirs["image_id"].tolist() == ours["image_id"].tolist()
    np.testing.assert_allclose(theirs["p_malignant"], ours["p_malignant"], atol=1e-3)


def test_helpers_import_no_other_backend():
    code = """
import importlib, pkgutil, sys, helpers
for module in pkgutil.iter_modules(helpers.__path__):
    importlib.import_module(f"helpers.{module.name}")
helpers.backbones.build_backbone("EfficientNetLite0", (64, 64), "none")
print({"jax", "tensorflow", "torch"} & set(sys.modules))"""
    env = {**os.environ, "KERAS_BACKEND": "jax"}
    said = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, env=env, text=True)
    assert said == "{'jax'}\n"
