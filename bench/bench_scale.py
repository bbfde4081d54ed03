"""Does the series grow with the database? Time and memory of each step on 1/16, 1/4 and all of it.

``python -m bench.bench_scale`` fills data/scale, to be removed afterwards, with stand-ins for the
7,909 images, every 4th and every 16th of them, and writes bench/scale.csv. Each step is a process;
notebooks have the smoke profile and share a cache, in this order. cpu_s is the time of its tree of
processes; peak_mib the largest sum of their own memory, seen ten times a second; mapped_mib that of
pages of files (code, cache), which Linux takes back when it needs room. more_ms and more_kib: what
an image more than in the row above adds to cpu_s and peak_mib.
"""

import os
import shutil
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
from PIL import Image

from helpers import data, images
from helpers.results import ROOT
from phantom import make_phantom, phantom_folder

INDEX = """import os, sys; from helpers import data; folder = os.environ["BREAKHIS_DIR"]
index, problems = data.build_index(folder)
data.save_run(data.start_run(sys.argv[1], "01_eda", folder, index, problems), problems)"""
OPEN = "import sys; from helpers import data, images; run = data.open_run(sys.argv[1], 'bench')\n"
CACHE = f"{OPEN}images.load_images(run.folder, run.index, [230, 350])"
FEATURES = f"""{OPEN}from helpers import features
features.frozen_features(run.folder, run.index, [230, 350], "EfficientNetLite0")"""
CALLS = {"index": ["-c", INDEX], "verify": ["-m", "helpers.data"]}  # a folder comes after these
CALLS |= {"cache": ["-c", CACHE], "features": ["-c", FEATURES]}
for notebook in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")):
    given = ["-f", f"notebooks/params/smoke/{notebook.stem}.yaml", "-p", "RESULTS"]
    CALLS[notebook.stem] = ["-m", "papermill", str(notebook), os.devnull, *given]


def stand_ins(folder, part, size):
    """Fill `folder` with every `part`-th image: a phantom's, of its slide, moved sideways."""
    source = make_phantom(phantom_folder(images_per_slide=1, size=size), 1, size)
    drawn = {path.stem: path for path in source.rglob("*.png")}
    names = sorted(data.manifest().values())[::part]

    def write(name):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.asarray(Image.open(drawn[f"{path.stem[:-3]}001"]))
        Image.fromarray(np.roll(pixels, 8 * int(path.stem[-3:]), 1)).save(path, compress_level=1)

    if not (folder / "phantom.json").exists():  # written last; it says what the images are
        images.thread_map(write, names, f"Images, 1/{part}")
        facts = (source / "phantom.json").read_text().replace('slide": 1,', 'slide": 999,')
        (folder / "phantom.json").write_text(facts)
    return len(names)


def measure(arguments, log, **variables):
    """Run Python, its output into the file `log`: seconds of CPU and wall, peaks of memory."""
    variables |= {"JUPYTER_PREFER_ENV_PATH": "1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    before, own, mapped = os.times(), [], []
    with open(log, "w", encoding="utf-8") as file:
        options = {"stdout": file, "stderr": file, "cwd": ROOT, "env": os.environ | variables}
        process = psutil.Popen([sys.executable, *arguments], **options)
        while process.poll() is None:
            with suppress(psutil.Error):  # one has just ended
                tree = [one.memory_info() for one in [process, *process.children(recursive=True)]]
                own.append(sum(one.rss - one.shared for one in tree) / 2**20)
                mapped.append(sum(one.shared for one in tree) / 2**20)
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{arguments}:\n{Path(log).read_text(encoding='utf-8')[-2000:]}")
    _, _, user, system, wall = np.subtract(os.times(), before)
    return {"cpu_s": user + system, "wall_s": wall, "peak_mib": max(own), "mapped_mib": max(mapped)}


def main(place, table, parts=(16, 4, 1), steps=tuple(CALLS), size=(460, 700)):
    """Measure steps on parts of the images, and bring the table, a CSV file, up to date."""
    rows, keys = pd.read_csv(table) if table.exists() else None, ["step", "images"]
    for part in parts:
        folder, work = place / f"1-{part}", place / f"1-{part}-work"
        key = {"fraction": f"1/{part}", "images": stand_ins(folder, part, size)}
        if "index" in steps:  # from the start
            shutil.rmtree(work, ignore_errors=True)
        for step in steps:
            call = [*CALLS[step], str(folder if step == "verify" else work / "results")]
            places = {"BREAKHIS_DIR": str(folder), "BREAKHIS_CACHE": str(work / "cache")}
            row = {"step": step} | key | measure(call, place / f"1-{part}-{step}.txt", **places)
            rows = pd.concat([rows, pd.DataFrame([row])]).drop_duplicates(keys, keep="last")
            rows = rows.sort_values(keys, ignore_index=True)
            up = rows.groupby("step")[["images", "cpu_s", "peak_mib"]].diff()
            rows[["more_ms", "more_kib"]] = up.div(up["images"], axis=0).iloc[:, 1:] * [1000, 1024]
            rows.to_csv(table, index=False, float_format="%.1f")
            print(rows[rows["step"].eq(step)].round(1).to_string(), flush=True)


if __name__ == "__main__":
    main(ROOT / "data/scale", ROOT / "bench/scale.csv", steps=sys.argv[1:] or tuple(CALLS))
