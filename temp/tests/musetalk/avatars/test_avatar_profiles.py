"""What people say about an avatar: kept beside its folder, replaced and deleted with it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from gpuserver.config import Settings
from gpuserver.errors import AvatarExists, AvatarNotFound
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_profiles import AvatarProfiles
from gpuserver.musetalk.avatars.avatar_shelf import AvatarShelf
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.wire import AvatarInfo, AvatarProfile, QualityReport

SAID = AvatarProfile(description="讲代数的老师", timbre="warm", tts_model="edge-tts", avatar_model="MuseTalk")
QUALITY = QualityReport(source_frames=1, used_frames=1, frames_without_face=0, face_width=9, mouth_width=3, mouth_opening_at_rest=0.0)


@pytest.fixture
def profiles(tmp_path: Path) -> AvatarProfiles:
    return AvatarProfiles(tmp_path)


@pytest.fixture
def manager(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AvatarManager:
    """Its preparations write a description and nothing else."""

    def describe(job: PreparationRequest, *_: object, **__: object) -> AvatarInfo:
        known = {"avatar_id": job.avatar_id, "frames": 1, "width": 2, "height": 2, "seconds": 0.04, "created_at": "2026-01-01T00:00:00Z"}
        info = AvatarInfo.model_validate({**known, "quality": QUALITY})
        (job.folder / "avatar.json").write_text('{"format": 1, ' + info.model_dump_json()[1:])
        return info

    monkeypatch.setattr(avatar_manager, "run_preparation", describe)
    manager = AvatarManager(settings)
    manager.start()
    return manager


def _said_of(manager: AvatarManager, avatar_id: str) -> AvatarProfile:
    return AvatarProfile.model_validate(manager.info(avatar_id).model_dump(include=set(AvatarProfile.model_fields)))


def test_a_profile_is_read_as_it_was_written(profiles: AvatarProfiles) -> None:
    profiles.write("a", SAID)
    assert (profiles.read("a"), profiles.read("b")) == (SAID, AvatarProfile())


def test_an_empty_profile_leaves_no_file(profiles: AvatarProfiles, tmp_path: Path) -> None:
    profiles.write("a", SAID)
    profiles.write("a", AvatarProfile())
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_profile_counts_as_none_and_is_logged(profiles: AvatarProfiles, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    profiles.write("a", SAID)
    (tmp_path / "a.profile.json").write_text("{")
    assert profiles.read("a") == AvatarProfile()
    assert "the profile of avatar a is damaged" in caplog.text


def test_a_profile_comes_and_goes_with_its_avatar(manager: AvatarManager, settings: Settings, tmp_path: Path) -> None:
    video = tmp_path / "face.mp4"
    video.write_bytes(b"a video")
    manager.create_from_file("anna", video, profile=SAID)
    assert _said_of(manager, "anna") == SAID
    assert manager.infos()[0].description == SAID.description
    assert "warm" not in (manager.folder("anna") / "avatar.json").read_text()
    manager.create_from_file("anna", video, replace=True)
    assert _said_of(manager, "anna") == AvatarProfile()
    manager.create_from_file("anna", video, profile=SAID, replace=True)
    manager.delete("anna")
    assert list((settings.avatars_dir / ".state").iterdir()) == []
    with pytest.raises(AvatarNotFound):
        manager.delete("anna")


def test_who_comes_second_does_not_change_what_is_said_of_the_first(
    manager: AvatarManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the first one ends just before the second one begins."""
    making = AvatarShelf.making
    video = tmp_path / "video"
    video.write_bytes(b"x")

    def after_the_first(shelf: AvatarShelf, avatar_id: str) -> AbstractContextManager[Path]:
        monkeypatch.setattr(AvatarShelf, "making", making)
        manager.create_from_file("anna", video, profile=SAID)
        return making(shelf, avatar_id)

    monkeypatch.setattr(AvatarShelf, "making", after_the_first)
    with pytest.raises(AvatarExists):
        manager.create_from_file("anna", video, profile=AvatarProfile(description="another"))
    assert _said_of(manager, "anna") == SAID
