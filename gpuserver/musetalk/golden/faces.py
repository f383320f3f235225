"""Golden data of the face's way: boxes, the parts of a face, masks and the blend."""

from __future__ import annotations

import re
from typing import cast

import numpy as np
from numpy.typing import NDArray

from gpuserver.domain import Box, Bytes2D
from gpuserver.musetalk.golden.files import Array, GoldenFile, GoldenFolder
from gpuserver.musetalk.golden.overheard import Overheard
from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.neural.blending import (
    BLUR_OFFLINE,
    MaskMode,
    blend,
    cheek_columns,
    cheek_kernel,
    crop_box,
    fitted_mask,
    jaw_kernel,
    parsing_mask,
    soft_mask,
)
from gpuserver.musetalk.neural.face_boxes import face_box
from gpuserver.musetalk.preparing.face_encoder import FaceParser
from gpuserver.musetalk.weight_files.made_up_weights import formula_weights

MASK = 1  # level
SCORES = 2e-3
NORMALISED = 1e-4

_MASK = re.compile(r"mask_(?P<mode>raw|jaw|neck)_(?P<width>\d+)")
_CHEEKS = re.compile(r"cheek_mask_(?P<width>\d+)")
_BLENDED = re.compile(r"(?P<case>.+_(?P<mode>raw|jaw|neck))_(box|crop_box|mask|rt|offline)")
_SCORES = re.compile(r"logits_ds(?P<step>\d+)")
_BOX_FIELDS = {"case", "shift", "landmarks68", "detector", "out"}


def check_boxes(file: GoldenFile, content: object) -> None:
    """content: the JSON list of cases."""
    for case in cast(list[dict[str, object]], content):
        name = str(case["case"])
        if case.keys() != _BOX_FIELDS:
            file.fail(f"{name} has other fields than {', '.join(sorted(_BOX_FIELDS))}")
            continue
        points, detected = cast(list[list[list[float]]], case["landmarks68"]), cast(list[list[int] | None], case["detector"])
        shift = cast(int, case["shift"])
        ours = [
            face_box(np.array(face), None if found is None else Box(*found), shift) for face, found in zip(points, detected, strict=True)
        ]
        golden = np.array(case["out"], np.float64)
        boxes = np.array([corners(box) for box in ours], np.float64)
        file.note(name, float(np.abs(boxes - golden).max()) if boxes.shape == golden.shape else np.inf, 0)


def check_bisenet(file: GoldenFile, _folder: GoldenFolder) -> None:
    network = formula_weights(BiSeNet(), "bisenet:")
    picture = pictures(file.use(next(name for name in file.arrays if name.endswith("_bgr"))))
    with Overheard(network) as heard:
        classes = FaceParser(network)(picture[:, :, ::-1])
    normalised, scores = heard.inputs[0].numpy().astype(np.float64), heard.outputs[0][0].numpy()
    file.compare("input_mean_std", [normalised.mean(), normalised.std()], NORMALISED)
    for name in file.arrays:
        if match := _SCORES.fullmatch(name):
            step = int(match["step"])
            file.compare(name, scores[:, step // 2 :: step, step // 2 :: step], SCORES)
    if "argmax" in file:
        file.note("argmax", _class_error(scores, classes, file.use("argmax")), 2 * SCORES)


def _class_error(scores: NDArray[np.float32], ours: Bytes2D, golden: Array) -> float:
    """How much less our network scores a class of the golden map than our own: 0 where they are the same, little at a tie."""
    if golden.shape != ours.shape or golden.dtype.kind not in "iu" or not 0 <= golden.min() <= golden.max() < len(scores):
        return np.inf
    own, theirs = (np.take_along_axis(scores, classes[None].astype(np.int64), axis=0) for classes in (ours, golden))
    return float(np.max(own - theirs))


def check_masks(file: GoldenFile, _folder: GoldenFolder) -> None:
    classes = pictures(file.use("parse_map"))
    file.compare("kernel", jaw_kernel(), tolerance=0)
    file.compare("cheek_kernel_35x3", cheek_kernel(), tolerance=0)
    for name in file.arrays:
        if match := _MASK.fullmatch(name):
            file.compare(name, parsing_mask(classes, cast(MaskMode, match["mode"]), int(match["width"])), MASK)
        elif match := _CHEEKS.fullmatch(name):
            columns = np.broadcast_to(cheek_columns(int(match["width"])), classes.shape)
            file.compare(name, np.where(columns, 255, 0), tolerance=0)


def check_blending(file: GoldenFile, folder: GoldenFolder) -> None:
    classes = class_map(file, folder)
    for case, mode in {match["case"]: match["mode"] for match in map(_BLENDED.fullmatch, file.arrays) if match}.items():
        picture, face = pictures(file.use("frame0")), pictures(file.use("face256"))
        box = box_of(file.use(f"{case}_box"))
        file.compare(f"{case}_crop_box", corners(crop_box(box)), tolerance=0)
        shown = fitted_mask(parsing_mask(classes, cast(MaskMode, mode)), box)
        mask = soft_mask(shown, box)
        file.compare(f"{case}_mask", mask, MASK)
        if f"{case}_mask" in file:
            mask = pictures(file.use(f"{case}_mask"))  # what tolerance leaves to the mask is not to show in the blend
        file.compare(f"{case}_rt", blend(picture, face, box, mask), tolerance=0)
        file.compare(f"{case}_offline", blend(picture, face, box, soft_mask(shown, box, BLUR_OFFLINE)), tolerance=0)


def class_map(file: GoldenFile, folder: GoldenFolder) -> Bytes2D:
    """The file's own class map, or that of parsing_masks.npz. Raises ValueError if there is none."""
    found = file.use("parse_map") if "parse_map" in file else folder.array("parsing_masks", "parse_map", file)
    if found is None:
        raise ValueError("there is no parsing_masks.npz with the class map that its masks are made of")
    return pictures(found)


def box_of(array: Array) -> Box:
    """Raises ValueError for what is not four numbers."""
    left, top, right, bottom = (int(edge) for edge in array.tolist())
    return Box(left, top, right, bottom)


def corners(box: Box) -> tuple[int, int, int, int]:
    return box.left, box.top, box.right, box.bottom


def pictures(array: Array) -> NDArray[np.uint8]:
    """The array itself. Raises ValueError for other numbers than bytes."""
    if array.dtype != np.uint8:
        raise ValueError(f"an array of {array.dtype} is no picture")
    return cast(NDArray[np.uint8], array)
