"""What `gpuserver models check` and the server's start say of the weight files, with sparse files of the official sizes."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from gpuserver.musetalk.weight_files import model_check, model_files
from gpuserver.musetalk.weight_files.model_check import FileReport, Verdict, check_models, unusable
from gpuserver.musetalk.weight_files.model_download import files_to_download
from gpuserver.musetalk.weight_files.model_files import NEEDS, ModelFile, Need, Version, describe_missing, installed_version, missing_files

UNET, VAE, WHISPER = "musetalkV15/unet.pth", "sd-vae/diffusion_pytorch_model.bin", "whisper/pytorch_model.bin"


def put(base: Path, *paths: str, size: int | None = None) -> None:
    """Files of the official sizes, or of another one; they take no room on disk."""
    sizes = {file.path: file.size or 1000 for need in NEEDS for file in need.choices}
    for path in paths:
        target = base / "models" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as file:
            file.truncate(sizes[path] if size is None else size)


def put_safetensors(base: Path, path: str, *, lost: int = 0) -> None:
    header = json.dumps({"__metadata__": {"a": "b"}, "weight": {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}}).encode()
    target = base / "models" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    content = len(header).to_bytes(8, "little") + header + bytes(8)
    target.write_bytes(content[: len(content) - lost])


def by_path(reports: list[FileReport]) -> dict[str, FileReport]:
    return {report.path: report for report in reports}


def can_serve(reports: list[FileReport], version: Version) -> bool:
    return unusable(reports, version) == []


def names(needs: list[Need]) -> list[str]:
    return [need.name for need in needs]


def test_all_hashes_and_revisions_are_whole() -> None:
    for file in (file for need in NEEDS for file in need.choices):
        assert file.sha256 is None or re.fullmatch(r"[0-9a-f]{64}", file.sha256), file.path
        assert file.source is None or re.fullmatch(r"[0-9a-f]{40}", file.source.revision), file.path
        assert file.page.startswith("https://"), file.path


def test_the_first_choice_of_everything_can_be_downloaded() -> None:
    assert all(need.choices[0].source is not None and need.choices[0].size for need in NEEDS)


def test_nothing_there_is_all_missing(tmp_path: Path) -> None:
    reports = check_models(tmp_path)
    assert {report.verdict for report in reports} == {Verdict.MISSING}
    assert [report.need for report in reports] == list(NEEDS)
    assert names(missing_files(tmp_path, Version.V15)) == ["UNet V1.5", "VAE", "Whisper tiny"]
    assert installed_version(tmp_path) is None


@pytest.mark.parametrize("vae", [file.path for file in NEEDS[2].choices])
@pytest.mark.parametrize("whisper", [file.path for file in NEEDS[3].choices])
def test_any_of_the_known_layouts_serves(tmp_path: Path, vae: str, whisper: str) -> None:
    put(tmp_path, UNET, vae, whisper)
    reports = check_models(tmp_path)
    assert can_serve(reports, Version.V15)
    assert not can_serve(reports, Version.V10)
    assert missing_files(tmp_path, Version.V15) == []
    assert installed_version(tmp_path) is Version.V15
    assert describe_missing(tmp_path) is None


def test_an_older_version_serves_where_only_that_is_there(tmp_path: Path) -> None:
    put(tmp_path, "musetalk/pytorch_model.bin", VAE, WHISPER)
    assert can_serve(check_models(tmp_path), Version.V10)
    assert installed_version(tmp_path) is Version.V10


def test_a_truncated_file_is_of_wrong_size_and_cannot_serve(tmp_path: Path) -> None:
    put(tmp_path, VAE, WHISPER)
    put(tmp_path, UNET, size=1234)
    reports = check_models(tmp_path)
    assert by_path(reports)[UNET].verdict is Verdict.WRONG_SIZE
    assert not can_serve(reports, Version.V15)
    assert UNET in {file.path for file in files_to_download(tmp_path, Version.V15)}


def test_one_version_in_the_place_of_the_other_is_seen_by_its_size(tmp_path: Path) -> None:
    put(tmp_path, UNET, size=3_400_076_549)
    assert by_path(check_models(tmp_path))[UNET].verdict is Verdict.WRONG_SIZE


def test_hashes_are_compared_on_request_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"weights" * 1000
    good = ModelFile("a/good.pth", len(content), hashlib.sha256(content).hexdigest())
    bad = replace(good, path="a/bad.pth", sha256="0" * 64)
    needs = tuple(Need(file.path, "tests", frozenset(Version), (file,)) for file in (good, bad))
    monkeypatch.setattr(model_check, "NEEDS", needs)
    for file in (good, bad):
        (tmp_path / "models" / "a").mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / file.path).write_bytes(content)
    assert [report.sha256 for report in check_models(tmp_path)] == ["not computed", "not computed"]
    read: list[tuple[str, int]] = []
    reports = check_models(tmp_path, hashes=True, progress=lambda path, done: read.append((path, done)))
    assert [(report.verdict, report.sha256) for report in reports] == [(Verdict.GOOD, "matches"), (Verdict.WRONG_HASH, "differs")]
    assert read == [("a/good.pth", len(content)), ("a/bad.pth", len(content))]


def test_converted_files_serve_alone_and_are_preferred_to_older_originals(tmp_path: Path) -> None:
    for path in (UNET, VAE, WHISPER):
        put_safetensors(tmp_path, str(Path(path).with_suffix("")) + ".fp16.safetensors")
    assert can_serve(check_models(tmp_path), Version.V15)
    put(tmp_path, UNET)
    os.utime(tmp_path / "models" / UNET, (1_700_000_000, 1_700_000_000))
    assert missing_files(tmp_path, Version.V15) == []
    found = NEEDS[0].found(tmp_path)
    assert found is not None
    assert found.name == "unet.fp16.safetensors"


@pytest.mark.parametrize("lost", [1, 8, 60, 95])
def test_a_truncated_conversion_is_seen(tmp_path: Path, lost: int) -> None:
    put_safetensors(tmp_path, "musetalkV15/unet.fp16.safetensors", lost=lost)
    assert by_path(check_models(tmp_path))["musetalkV15/unet.fp16.safetensors"].verdict is Verdict.TRUNCATED


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[1]",
        b'{"w": 1}',
        b'{"w": {"data_offsets": []}}',
        b'{"w": {"data_offsets": [0, 8]}, "v": {"data_offsets": [8, "x"]}}',
        b'{"w": {"data_offsets": [0, NaN]}}',
        b"[" * 100_000,
        b"\xff\xfe",
        b"{}",
    ],
    ids=lambda header: header[:40].decode("ascii", "backslashreplace"),
)
def test_a_conversion_with_a_broken_header_is_not_whole(tmp_path: Path, header: bytes) -> None:
    put_safetensors(tmp_path, "musetalkV15/unet.fp16.safetensors")
    (tmp_path / "models/musetalkV15/unet.fp16.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert by_path(check_models(tmp_path))["musetalkV15/unet.fp16.safetensors"].verdict is Verdict.TRUNCATED


def test_what_would_be_loaded_decides(tmp_path: Path) -> None:
    put(tmp_path, UNET, VAE, WHISPER)
    put_safetensors(tmp_path, "musetalkV15/unet.fp16.safetensors", lost=1)
    assert names(unusable(check_models(tmp_path), Version.V15)) == ["UNet V1.5"]
    assert [file.path for file in files_to_download(tmp_path, Version.V15)] == ["face-parse-bisent/79999_iter.pth"]
    put_safetensors(tmp_path, "musetalkV15/unet.fp16.safetensors")
    put(tmp_path, UNET, size=1)
    assert can_serve(check_models(tmp_path), Version.V15)


def test_a_damaged_file_is_replaced_by_the_same_one(tmp_path: Path) -> None:
    put(tmp_path, UNET, WHISPER)
    put(tmp_path, VAE, size=9)
    assert VAE in [file.path for file in files_to_download(tmp_path, Version.V15)]


def test_only_what_is_not_usable_is_downloaded(tmp_path: Path) -> None:
    put(tmp_path, UNET, "whisper/tiny.pt")
    paths = [file.path for file in files_to_download(tmp_path, Version.V15)]
    assert paths == ["sd-vae/diffusion_pytorch_model.safetensors", "face-parse-bisent/79999_iter.pth"]


def test_the_sentence_for_the_log_names_what_to_set_or_what_is_missing(tmp_path: Path) -> None:
    unset = describe_missing(None)
    assert unset is not None
    assert "MUSETALK_BASE" in unset
    put(tmp_path, VAE, WHISPER)
    missing = describe_missing(tmp_path)
    assert missing is not None
    assert f"{UNET} (UNet V1.5)" in missing
    assert "whisper" not in missing
    assert "gpuserver models download" in missing


def test_the_catalogue_needs_nothing_but_the_standard_library() -> None:
    source = Path(model_files.__file__).read_text()
    roots = {line.split()[1].split(".")[0] for line in source.splitlines() if re.match(r"(from|import) ", line)}
    assert roots <= {"__future__", "collections", "dataclasses", "enum", "pathlib"}
