"""The phantom: a synthetic stand-in for BreakHis, in its layout and with its slides.

Every picture is drawn from its name, the seed and two strengths, so the same request gives the
same bytes whatever the number of processes, and the true nuclei can be drawn again at any time.
It shows that the machinery works. It says nothing about tumours.

How hard it is. `signal` is the share of patients whose tissue is of the type they are filed under;
of the fields of any patient, FIELDS show the patient's tissue, the others show what comes. So an
image tells less than a patient does, as in real images, and `oracle`, who knows each patient's
tissue, is the ceiling of all models. AUC of patients (of images in brackets) with the demo's 328
images, by seed 0; the probe is the fixed one of notebook 02, on patients never seen:

    signal                     0.7          0.8          0.85         0.9          1.0
    oracle                     0.91         0.92         0.95         0.97         1.00
    probe, FIELDS = 1.0        0.91 (0.84)  0.92 (0.85)  0.94 (0.91)  0.97 (0.93)  1.00 (0.97)
    probe, FIELDS = 0.75                    0.76 (0.67)  0.83 (0.73)  0.87 (0.76)

Where every field shows the tissue, a frozen network and a line reach the ceiling at any signal. The
notebooks take 0.9 and 0.75: the probe scores as on real images, with room for better models above.
"""

import hashlib
import inspect
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock
from joblib import Parallel, delayed
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm import tqdm

from helpers.data import MAGNIFICATIONS
from helpers.images import PHANTOM_MARK
from helpers.results import ROOT
from phantom import tissue, tissue_stain

TYPE_FOLDERS = {
    "A": "adenosis",
    "F": "fibroadenoma",
    "PT": "phyllodes_tumor",
    "TA": "tubular_adenoma",
    "DC": "ductal_carcinoma",
    "LC": "lobular_carcinoma",
    "MC": "mucinous_carcinoma",
    "PC": "papillary_carcinoma",
}
FIELDS = 0.75  # share of fields that show their patient's tissue; the others show any type's


class Picture(NamedTuple):
    """One picture to draw: what is in its name, and where it goes inside the folder."""

    image_id: str
    path: str
    tumor_type: str
    accession: str
    magnification: int


def make_phantom(
    folder: str | Path,
    images_per_slide: int = 3,
    size: tuple[int, int] = (230, 350),
    seed: int = 0,
    signal: float = 0.9,
    signature: float = 1.0,
    magnifications: Sequence[int] = MAGNIFICATIONS,
    workers: int | None = None,
) -> Path:
    """Write the phantom to `folder` and return it; nothing is done if it is there already.

    `images_per_slide` counts for each of 82 slides and each of `magnifications`; `size` is height
    and width in px. `signal` (0 to 1) is the share of accessions whose tissue is of the type
    they are filed under; that of the others is of a type drawn without regard to it, so at 0 the
    labels say nothing about the pictures, and at 1 no accession misleads, though fields do: see
    FIELDS. `signature` (0 to 1) is
    how far accessions differ in stain, light, camera, density of collagen and atypia; all slides
    of an accession share these.
    A phantom made with other parameters is replaced; any other folder with files in it is left
    alone (ValueError). The folder appears only when it is complete.
    """
    folder = Path(folder)
    wanted = _parameters(images_per_slide, size, seed, signal, signature, magnifications)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if _recorded(folder) == wanted:
            return folder
        _refuse_foreign(folder)
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        try:
            _draw_all(partial, wanted, workers)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def phantom_folder(**parameters) -> Path:
    """Return where the phantom with these parameters of `make_phantom` belongs."""
    wanted = _parameters(**(_defaults() | parameters))
    del wanted["code"]
    key = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:8]
    height, width = wanted["size"]
    name = f"{wanted['images_per_slide']}-a-slide-{height}x{width}-{key}"
    return ROOT / "data" / "phantom" / name


def nuclei_mask(folder: str | Path, image_id: str) -> np.ndarray:
    """Return the true nuclei of a phantom image: bool (height, width), drawn again from its name.

    Raises FileNotFoundError where `folder` is no phantom, ValueError for an unknown image or
    where the drawing code has changed since the phantom was made.
    """
    recorded = _made_by_this_code(folder)
    for picture in _pictures(recorded):
        if picture.image_id == image_id:
            return _draw(picture, recorded)[1]
    raise ValueError(f"{image_id} is not an image of the phantom in {folder}")


def oracle(folder: str | Path) -> pd.Series:
    """Return P(malignant) by image_id, float64, of one who knows the tissue of each patient.

    It follows (Bayes) from `signal` and from how often each type is filed. Errors as `nuclei_mask`.
    """
    recorded = _made_by_this_code(folder)
    pictures, types = pd.DataFrame(_pictures(recorded)), list(TYPE_FOLDERS)
    filed = pictures.drop_duplicates(["accession", "tumor_type"])["tumor_type"].value_counts()
    signal, n = recorded["signal"], filed.reindex(types).to_numpy()[:, None]
    joint = n * (signal * np.eye(len(types)) + (1 - signal) / len(types))  # filed, tissue
    p = dict(zip(types, joint[4:].sum(axis=0) / joint.sum(axis=0), strict=True))
    names = pictures["accession"].unique()
    patients = {name: _patient(recorded["seed"], name) for name in names}
    told = [
        p[row.tumor_type if (who := patients[row.accession]).typical < signal else who.kind]
        for row in pictures.itertuples()
    ]
    return pd.Series(told, index=pictures["image_id"])


def _made_by_this_code(folder: str | Path) -> dict:
    recorded = _recorded(Path(folder))
    if recorded is None:
        raise FileNotFoundError(f"{folder} is no phantom: it holds no phantom.json")
    if recorded["code"] != _code_key():
        raise ValueError(f"{folder} was drawn by another version of the code; make it again")
    return recorded


def _parameters(images_per_slide, size, seed, signal, signature, magnifications) -> dict:
    """Return the checked parameters as phantom.json records them."""
    if images_per_slide < 1 or images_per_slide > 999:
        raise ValueError(f"images_per_slide is {images_per_slide}; allowed: 1 to 999")
    if len(size) != 2 or min(size) < 32:
        raise ValueError(f"size is {list(size)}; allowed: [height, width] in px, each at least 32")
    for name, value in (("signal", signal), ("signature", signature)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value}; allowed: 0 to 1")
    if not magnifications or not set(magnifications) <= set(MAGNIFICATIONS):
        raise ValueError(f"magnifications {list(magnifications)}; allowed: any of {MAGNIFICATIONS}")
    return {
        "images_per_slide": int(images_per_slide),
        "magnifications": sorted(int(m) for m in set(magnifications)),
        "size": [int(side) for side in size],
        "seed": int(seed),
        "signal": float(signal),
        "signature": float(signature),
        "code": _code_key(),
    }


def _defaults() -> dict:
    arguments = inspect.signature(make_phantom).parameters
    return {k: v.default for k, v in arguments.items() if k not in ("folder", "workers")}


def _code_key() -> str:
    """Return a key of the code that draws: another code is another phantom."""
    sources = [Path(__file__), *tissue.sources()]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


def _recorded(folder: Path) -> dict | None:
    try:
        return json.loads((folder / "phantom.json").read_text())
    except FileNotFoundError:
        return None


def _refuse_foreign(folder: Path) -> None:
    if folder.exists() and _recorded(folder) is None and any(folder.iterdir()):
        raise ValueError(f"{folder} holds files that are no phantom; name another folder")


def _pictures(parameters: dict) -> Iterator[Picture]:
    slides = pd.read_csv(ROOT / "data" / "slides.csv", dtype=str)
    for row in slides.itertuples():
        letter = "B" if row.tumor_class == "benign" else "M"
        number = row.slide.removeprefix(f"{row.tumor_type}-")
        top = f"BreaKHis_v1/histology_slides/breast/{row.tumor_class}/SOB"
        slide = f"{top}/{TYPE_FOLDERS[row.tumor_type]}/SOB_{letter}_{row.tumor_type}_{number}"
        for magnification in parameters["magnifications"]:
            for sequence in range(1, parameters["images_per_slide"] + 1):
                name = f"SOB_{letter}_{row.slide}-{magnification}-{sequence:03d}"
                path = f"{slide}/{magnification}X/{name}.png"
                yield Picture(name, path, row.tumor_type, row.accession, magnification)


def _draw_all(folder: Path, parameters: dict, workers: int | None) -> None:
    pictures = list(_pictures(parameters))
    for parent in {(folder / picture.path).parent for picture in pictures}:
        parent.mkdir(parents=True)
    tasks = (delayed(_write)(folder, picture, parameters) for picture in pictures)
    pool = Parallel(n_jobs=workers or -1, return_as="generator_unordered", batch_size=4)
    for _ in tqdm(pool(tasks), total=len(pictures), desc="Drawing the phantom", unit="image"):
        pass
    (folder / "phantom.json").write_text(json.dumps(parameters, indent=1) + "\n")


def _write(folder: Path, picture: Picture, parameters: dict) -> None:
    image, _ = _draw(picture, parameters)
    mark = PngInfo()  # a picture that leaves this folder still says what it is
    mark.add_text("Software", PHANTOM_MARK)
    Image.fromarray(image).save(folder / picture.path, compress_level=1, pnginfo=mark)


def _draw(picture: Picture, parameters: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return image (uint8) and nuclei (bool). A name enters the random streams only as a hash."""
    patient = _patient(parameters["seed"], picture.accession)
    stream = _stream(parameters["seed"], "image", picture.image_id)
    shown, kind = stream.random(), tissue_stain.TYPES[stream.integers(len(tissue_stain.TYPES))]
    if shown >= FIELDS:
        patient = patient._replace(typical=1.0, kind=kind)
    return tissue.draw_image(
        picture.tumor_type,
        picture.magnification,
        parameters["size"],
        patient,
        stream,
        parameters["signal"],
        parameters["signature"],
    )


def _patient(seed: int, accession: str) -> tissue_stain.Patient:
    return tissue_stain.draw_patient(_stream(seed, "accession", accession))


def _stream(seed: int, kind: str, name: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed} {kind} {name}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
