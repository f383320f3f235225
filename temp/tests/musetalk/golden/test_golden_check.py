"""`gpuserver models verify`: every golden array is compared, a perturbed one fails, and so does whatever is not known."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_data import GOLDEN

from gpuserver.musetalk.golden.check import Check, check_golden
from gpuserver.musetalk.golden.files import Array
from gpuserver.musetalk.golden.sound import sound_of, synthetic_sound
from gpuserver.musetalk.neural.whisper_features import log_mel, upstream_windows

Change = Callable[[dict[str, Array]], None]

DATA = sorted(path.name for path in GOLDEN.iterdir() if path.suffix != ".md")
NEEDED = {"blending.npz": ["parsing_masks.npz"], "pipeline_tiny.npz": ["parsing_masks.npz", "blending.npz", "mel.npz"]}
PIPELINE_SOUND = ("hidden_first165", "n_chunks", "chunk_sel", "chunks", "chunks_pe", "border_frames", "border_chunks", "border_n")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def official_lines() -> list[Check]:
    """What is said of the golden data as it is."""
    torch.set_num_threads(1)
    return check_golden(GOLDEN)


def folder_with(folder: Path, file: str, change: Change = lambda arrays: None, *, saved_as: str | None = None) -> Path:
    """A folder with one changed golden file, and those beside it that it cannot be compared without."""
    for name in NEEDED.get(file, []):
        shutil.copyfile(GOLDEN / name, folder / name)
    with np.load(GOLDEN / file) as golden:
        arrays = dict(golden)
    change(arrays)
    np.savez(folder / (saved_as or file), **arrays)
    return folder


def lines_of(folder: Path, file: str) -> dict[str, Check]:
    """What is said of one file of a folder, by array; what is said of the whole file is under its own name."""
    return {line.name.removeprefix(f"{file} "): line for line in check_golden(folder) if line.name.startswith(file)}


def first_face_alone(arrays: dict[str, Array], drawn: str) -> None:
    """Leave of pipeline_tiny.npz what the first drawn face is made of, and that face."""
    for name in arrays.keys() - {"latents_mode", "gen_frames", drawn}:
        del arrays[name]
    for name in ("gen_frames", drawn):
        arrays[name] = arrays[name][:1]


def perturbed(array: Array) -> Array:
    """One element, in the middle, beyond any tolerance."""
    changed = array.copy().reshape(-1)
    place = changed.size // 2
    changed[place] = changed[place] ^ 64 if changed.dtype.kind in "ui" else changed[place] + np.asarray(0.05, changed.dtype)
    return changed.reshape(array.shape)


def compared(lines: list[Check], file: str) -> list[str]:
    """The arrays of a file that are compared, as opposed to those that others are computed from."""
    return [line.name.removeprefix(f"{file} ") for line in lines if line.name.startswith(f"{file} ") and "input" not in line.note]


# ---------------------------------------------------------------- the golden data as it is


def test_every_golden_array_is_met(official_lines: list[Check]) -> None:
    assert [line for line in official_lines if not line.ok] == []


@pytest.mark.parametrize("file", [name for name in DATA if name.endswith(".npz")])
def test_every_array_has_a_line(official_lines: list[Check], file: str) -> None:
    with np.load(GOLDEN / file) as arrays:
        assert {f"{file} {name}" for name in arrays.files} <= {line.name for line in official_lines}


def test_every_box_case_and_every_network_has_a_line(official_lines: list[Check]) -> None:
    cases = {f"bbox_cases.json {case['case']}" for case in json.loads((GOLDEN / "bbox_cases.json").read_text())}
    networks = {
        f"state_dict_manifest.json.gz {name}" for name in json.loads(gzip.decompress((GOLDEN / "state_dict_manifest.json.gz").read_bytes()))
    }
    assert cases | networks <= {line.name for line in official_lines}
    assert len(networks) == 7


def test_tolerances_are_those_of_the_description(official_lines: list[Check]) -> None:
    tolerance = {line.name: line.tolerance for line in official_lines}
    assert tolerance["mel.npz mel_first_340"] == 1e-4
    assert tolerance["blending.npz odd_jaw_mask"] == 1
    assert tolerance["blending.npz odd_jaw_rt"] == 0
    assert tolerance["pipeline_tiny.npz hidden_first165"] == 1e-3
    assert tolerance["pipeline_tiny.npz pred_latents"] == 2e-3
    assert tolerance["pipeline_tiny.npz recon_bgr_u8"] == 2
    assert tolerance["pipeline_tiny.npz recon_bgr_u8 (mean)"] == 0.1


def test_the_formula_of_the_sound_gives_the_golden_sound() -> None:
    with np.load(GOLDEN / "mel.npz") as arrays:
        np.testing.assert_array_equal(synthetic_sound(3.2), arrays["pcm"])


# ---------------------------------------------------------------- perturbed arrays


@pytest.mark.parametrize("file", [name for name in DATA if name.endswith(".npz")])
def test_every_array_that_is_compared_fails_when_one_element_of_it_is_wrong(tmp_path: Path, official_lines: list[Check], file: str) -> None:
    names = [name for name in compared(official_lines, file) if "mean)" not in name]

    def change(arrays: dict[str, Array]) -> None:
        for name in names:
            arrays[name] = perturbed(arrays[name])

    lines = lines_of(folder_with(tmp_path, file, change), file)
    assert [name for name in names if lines[name].ok] == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("mel.npz", "pcm"),
        ("bisenet.npz", "frame0_bgr"),
        ("parsing_masks.npz", "parse_map"),
        ("blending.npz", "frame0"),
        ("blending.npz", "face256"),
        ("blending.npz", "odd_jaw_box"),
    ],
)
def test_what_is_computed_from_a_wrong_array_fails(tmp_path: Path, file: str, name: str) -> None:
    def change(arrays: dict[str, Array]) -> None:
        arrays[name] = arrays[name] + np.asarray(3, arrays[name].dtype)

    assert not all(line.ok for line in lines_of(folder_with(tmp_path, file, change), file).values())


@pytest.mark.parametrize(("name", "failing"), [("chunk_sel", "chunks"), ("border_frames", "border_chunks")])
def test_frames_of_other_numbers_fail(tmp_path: Path, name: str, failing: str) -> None:
    def change(arrays: dict[str, Array]) -> None:
        for other in arrays.keys() - set(PIPELINE_SOUND):
            del arrays[other]
        arrays[name] = arrays[name] - 1

    assert not lines_of(folder_with(tmp_path, "pipeline_tiny.npz", change), "pipeline_tiny.npz")[failing].ok


def test_a_decoded_face_that_is_a_little_wrong_everywhere_fails_on_average(tmp_path: Path) -> None:
    def change(arrays: dict[str, Array]) -> None:
        first_face_alone(arrays, "recon_bgr_u8")
        arrays["recon_bgr_u8"] = np.asarray(arrays["recon_bgr_u8"], np.uint8) ^ np.uint8(1)

    lines = lines_of(folder_with(tmp_path, "pipeline_tiny.npz", change), "pipeline_tiny.npz")
    assert lines["recon_bgr_u8"].ok
    assert not lines["recon_bgr_u8 (mean)"].ok


@pytest.mark.parametrize("case", range(5))
def test_a_wrong_box_fails(tmp_path: Path, case: int) -> None:
    cases = json.loads((GOLDEN / "bbox_cases.json").read_text())
    cases[case]["out"][0][3] += 1
    (tmp_path / "bbox_cases.json").write_text(json.dumps(cases))
    assert [line.ok for line in check_golden(tmp_path)] == [index != case for index in range(5)]


def test_a_wrong_shape_in_the_manifest_fails(tmp_path: Path) -> None:
    manifest = json.loads(gzip.decompress((GOLDEN / "state_dict_manifest.json.gz").read_bytes()))
    for shapes in manifest.values():
        shapes[next(iter(shapes))][0] += 1
    (tmp_path / "state_dict_manifest.json.gz").write_bytes(gzip.compress(json.dumps(manifest).encode()))
    assert [line.error for line in check_golden(tmp_path)] == [1] * 7


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_fails(tmp_path: Path, number: float) -> None:
    def change(arrays: dict[str, Array]) -> None:
        arrays["mel_first_340"][0, 0] = number

    assert not lines_of(folder_with(tmp_path, "mel.npz", change), "mel.npz")["mel_first_340"].ok


def test_an_array_of_another_shape_fails(tmp_path: Path) -> None:
    def change(arrays: dict[str, Array]) -> None:
        arrays["mel_first_340"] = arrays["mel_first_340"][:, :-1]

    assert not lines_of(folder_with(tmp_path, "mel.npz", change), "mel.npz")["mel_first_340"].ok


# ---------------------------------------------------------------- files that were never seen


def test_other_files_of_a_known_kind_are_compared(tmp_path: Path) -> None:
    pcm = synthetic_sound(1.7, seed=3)
    mel = log_mel(sound_of(pcm))
    tail = mel[:, 200:].max()
    np.savez(tmp_path / "mel_2.npz", pcm=pcm, mel_first_200=mel[:, :200], mel_tail_const=tail, mel_tail_min=tail)
    np.savez(tmp_path / "audio_chunk_index_more.npz", idx_fps15_len40000=upstream_windows(40_000, 15).astype(np.int16))
    lines = {line.name: line for line in check_golden(tmp_path)}
    assert all(line.ok for line in lines.values())
    assert {"mel_2.npz mel_first_200", "audio_chunk_index_more.npz idx_fps15_len40000"} <= lines.keys()


def test_a_file_is_compared_with_those_of_its_own_number(tmp_path: Path) -> None:
    """blending_2.npz has the masks of parsing_masks_2.npz, another face than that of parsing_masks.npz."""
    folder_with(tmp_path, "blending.npz", saved_as="blending_2.npz")
    shutil.copyfile(GOLDEN / "parsing_masks.npz", tmp_path / "parsing_masks_2.npz")
    np.savez(tmp_path / "parsing_masks.npz", parse_map=np.zeros((512, 512), np.uint8))
    assert all(line.ok for line in lines_of(tmp_path, "blending_2.npz").values())


def test_an_array_that_is_missing_is_not_asked_for(tmp_path: Path) -> None:
    def change(arrays: dict[str, Array]) -> None:
        for name in arrays.keys() - {"hidden_first165"}:
            del arrays[name]

    lines = lines_of(folder_with(tmp_path, "pipeline_tiny.npz", change), "pipeline_tiny.npz")
    assert list(lines) == ["hidden_first165"]
    assert lines["hidden_first165"].ok


def test_faces_are_drawn_of_the_file_s_own_latents_where_there_is_no_picture(tmp_path: Path) -> None:
    def change(arrays: dict[str, Array]) -> None:
        first_face_alone(arrays, "pred_latents")

    folder = folder_with(tmp_path, "pipeline_tiny.npz", change)
    (folder / "blending.npz").unlink()
    assert lines_of(folder, "pipeline_tiny.npz")["pred_latents"].ok


def test_an_array_that_is_not_known_fails(tmp_path: Path) -> None:
    def change(arrays: dict[str, Array]) -> None:
        arrays["phase"] = np.zeros(3)

    lines = lines_of(folder_with(tmp_path, "mel.npz", change), "mel.npz")
    assert not lines["phase"].ok
    assert "unknown" in lines["phase"].note
    assert lines["mel_first_340"].ok


@pytest.mark.parametrize("name", ["latents.npz", "notes.txt", "weights.bin", "mel.npy", "bbox_cases.csv", "more.json"])
def test_a_file_that_is_not_known_fails(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"[]")
    assert [(line.name, line.ok) for line in check_golden(tmp_path)] == [(name, False)]


def test_texts_and_the_formula_are_passed_over(tmp_path: Path) -> None:
    folder_with(tmp_path, "parsing_masks.npz")
    for name in ("README.md", "formula_weights.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "__pycache__").mkdir()
    assert all(line.name.startswith("parsing_masks.npz ") and line.ok for line in check_golden(tmp_path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x93NUMPY"])
def test_a_file_that_cannot_be_read_fails(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mel.npz").write_bytes(content)
    (tmp_path / "state_dict_manifest.json.gz").write_bytes(content)
    assert not any(line.ok for line in check_golden(tmp_path))


def test_objects_in_a_file_are_not_loaded(tmp_path: Path) -> None:
    np.savez(tmp_path / "mel.npz", pcm=np.array([print], dtype=object))
    assert not any(line.ok for line in check_golden(tmp_path))


def test_a_mask_without_its_class_map_fails(tmp_path: Path) -> None:
    folder_with(tmp_path, "blending.npz")
    (tmp_path / "parsing_masks.npz").unlink()
    lines = [line for line in check_golden(tmp_path) if not line.ok]
    assert "parsing_masks.npz" in lines[0].note


def test_a_file_of_inputs_alone_fails(tmp_path: Path) -> None:
    np.savez(tmp_path / "mel.npz", pcm=synthetic_sound(0.5))
    assert not all(line.ok for line in check_golden(tmp_path))


def test_an_empty_folder_and_none_at_all_are_no_success(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert [line.ok for line in check_golden(folder)] == [False]
