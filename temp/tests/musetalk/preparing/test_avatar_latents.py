"""Avatars and MuseTalk: prepared at creation or on demand, once, never half, and always for what the server wants now."""

from __future__ import annotations

import logging
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from small_avatar import prepared_at_once, weights_in, write_small_avatar

from gpuserver.config import Settings
from gpuserver.domain import Avatar
from gpuserver.errors import AvatarExists, AvatarNotFound, Cancelled, DiskFull, GpuserverError, WeightsDamaged, WeightsMissing
from gpuserver.musetalk import avatar_manager
from gpuserver.musetalk.avatar_cache import AvatarCache
from gpuserver.musetalk.avatar_manager import AvatarManager
from gpuserver.musetalk.avatars.avatar_files import read_info
from gpuserver.musetalk.avatars.latent_files import LATENTS
from gpuserver.musetalk.latents_on_demand import RETRY_SECONDS, LatentsOnDemand
from gpuserver.musetalk.preparing import avatar_latents
from gpuserver.musetalk.preparing.avatar_latents import wanted_preparation
from gpuserver.musetalk.preparing.preparation import PreparationRequest
from gpuserver.musetalk.preparing.preparation_job import Watch
from gpuserver.musetalk.weight_files.model_files import Version
from gpuserver.wire import AvatarInfo


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small_avatar(folder)
    return folder


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return weights_in(tmp_path / "musetalk")


@pytest.fixture(autouse=True)
def no_children(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both steps of a creation run here: the first copies a small avatar, the second has a fake VAE."""

    def copy(job: PreparationRequest, _video: object, watch: Watch, **_: object) -> AvatarInfo:
        for file in small.iterdir():
            shutil.copy(file, job.folder)
        if watch.progress is not None:
            watch.progress("faces", 1.0)
        return read_info(job.folder)

    monkeypatch.setattr(avatar_manager, "run_preparation", copy)
    monkeypatch.setattr(avatar_latents, "run_latent_preparation", prepared_at_once)


def settings_of(tmp_path: Path, base: Path | None, **more: object) -> Settings:
    given = {"avatars_dir": tmp_path / "avatars", "enable_musetalk": base is not None, "musetalk_base": base, **more}
    return Settings(_env_file=None, **given)  # type: ignore[arg-type]


def manager_of(tmp_path: Path, base: Path | None, **more: object) -> AvatarManager:
    manager = AvatarManager(settings_of(tmp_path, base, **more))
    manager.start()
    return manager


def latents_on_disk(tmp_path: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in (tmp_path / "avatars" / ".latents").iterdir() if not path.name.startswith("."))


def is_prepared(avatar: Avatar) -> bool:
    return all(frame.generated is not None for frame in avatar.frames)


def fails_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Preparations fail; the list fills with what was tried."""
    tried: list[str] = []

    def fail(request: object, *_: object, **__: object) -> None:
        tried.append(str(request))
        raise error

    monkeypatch.setattr(avatar_latents, "run_latent_preparation", fail)
    return tried


# ---------------------------------------------------------------- which way


def test_the_newest_version_whose_weights_are_there_is_wanted(tmp_path: Path) -> None:
    old = wanted_preparation(settings_of(tmp_path, weights_in(tmp_path / "old", Version.V10), musetalk_bbox_shift=-5))
    assert (old.version, old.mask, old.parsing, old.bbox_shift, old.extra_margin) == ("V1.0", "raw", "landmarks", -5, 0)
    both = weights_in(weights_in(tmp_path / "both", Version.V10), Version.V15, bisenet=True)
    new = wanted_preparation(settings_of(tmp_path, both, musetalk_bbox_shift=-5))
    assert (new.version, new.mask, new.parsing, new.bbox_shift, new.extra_margin) == ("V1.5", "jaw", "bisenet", 0, 10)
    chosen = wanted_preparation(settings_of(tmp_path, both, musetalk_version="v1.0", musetalk_mask="neck"))
    assert (chosen.version, chosen.mask) == ("V1.0", "neck")


@pytest.mark.parametrize("version", ["auto", "v1.0", "v1.5"])
def test_without_weights_the_missing_files_are_named(tmp_path: Path, version: str) -> None:
    with pytest.raises(WeightsMissing, match="models download"):
        wanted_preparation(settings_of(tmp_path, tmp_path, musetalk_version=version))
    with pytest.raises(WeightsMissing, match="MUSETALK_BASE"):
        wanted_preparation(settings_of(tmp_path, None, musetalk_version=version))


# ---------------------------------------------------------------- at creation


def test_a_creation_does_both_steps_with_one_progress(tmp_path: Path, base: Path) -> None:
    manager, told = manager_of(tmp_path, base), list[tuple[str, float]]()
    created = manager.create_demo("anna", progress=lambda stage, part: told.append((stage, part)))
    assert created.engine == "musetalk"
    assert [stage for stage, _ in told] == ["faces", *["latents"] * 5]
    parts = [part for _, part in told]
    assert parts == sorted(parts)
    assert 0.2 < parts[0] < 0.8
    assert parts[-1] == 1
    info = manager.info("anna")
    assert info.engine == "musetalk"
    assert info.musetalk is not None
    assert info.musetalk.parsing == "landmarks"
    assert is_prepared(AvatarCache(manager).get("anna"))


def test_without_musetalk_only_the_first_step_is_done(tmp_path: Path) -> None:
    manager = manager_of(tmp_path, None)
    assert manager.create_demo("anna").engine == "warp"
    assert (manager.info("anna").engine, manager.info("anna").musetalk) == ("warp", None)
    assert latents_on_disk(tmp_path) == []


@pytest.mark.parametrize("error", [Cancelled("no"), DiskFull("full")])
def test_a_second_step_that_is_cancelled_or_finds_no_room_leaves_nothing(
    tmp_path: Path, base: Path, error: GpuserverError, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(tmp_path, base)
    fails_with(error, monkeypatch)
    with pytest.raises(type(error)):
        manager.create_demo("anna")
    assert manager.ids() == []
    assert latents_on_disk(tmp_path) == []
    assert list((tmp_path / "avatars" / ".versions").iterdir()) == []


def test_an_avatar_that_cannot_be_prepared_is_made_for_the_warp_engine_and_says_so(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(tmp_path, base)
    fails_with(WeightsDamaged("The VAE is cut off."), monkeypatch)
    created = manager.create_demo("anna")
    assert created.engine == "warp"
    assert "The VAE is cut off." in created.message
    assert manager.info("anna").engine == "warp"


def test_missing_weights_are_said_in_the_answer(tmp_path: Path) -> None:
    created = manager_of(tmp_path, tmp_path / "empty").create_demo("anna")
    assert created.engine == "warp"
    assert "models download" in created.message


def test_a_creation_that_comes_second_leaves_no_latents(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_of(tmp_path, base)

    def overtaken(*arguments: object, **options: object) -> object:
        (tmp_path / "avatars" / "anna").mkdir()
        return prepared_at_once(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(avatar_latents, "run_latent_preparation", overtaken)
    with pytest.raises(AvatarExists):
        manager.create_demo("anna")
    assert latents_on_disk(tmp_path) == []


def test_latents_go_with_their_avatar(tmp_path: Path, base: Path) -> None:
    manager = manager_of(tmp_path, base)
    manager.create_demo("anna")
    manager.create_demo("ann")
    manager.create_demo("anna", replace=True)
    assert latents_on_disk(tmp_path) == ["ann", "anna"]
    assert is_prepared(AvatarCache(manager).get("anna"))
    manager.delete("anna")
    assert latents_on_disk(tmp_path) == ["ann"]


def test_latents_that_no_avatar_has_are_swept_at_the_start(tmp_path: Path, base: Path) -> None:
    manager = manager_of(tmp_path, base)
    manager.create_demo("anna")
    shutil.rmtree(manager.folder("anna"))
    (tmp_path / "avatars" / ".latents" / ".making" / "dead" / "half").mkdir(parents=True)
    manager_of(tmp_path, base)
    assert latents_on_disk(tmp_path) == []
    assert not (tmp_path / "avatars" / ".latents" / ".making" / "dead").exists()


# ---------------------------------------------------------------- later


@pytest.fixture
def warp_only(tmp_path: Path) -> None:
    """An avatar that was made while MuseTalk was off."""
    manager_of(tmp_path, None).create_demo("anna")


@pytest.mark.usefixtures("warp_only")
def test_an_avatar_is_prepared_once_and_readers_get_it_then(tmp_path: Path, base: Path) -> None:
    manager = manager_of(tmp_path, base)
    cache = AvatarCache(manager)
    before = cache.get("anna")
    assert not is_prepared(before)
    assert manager.prepare_for_musetalk("anna")
    assert not manager.prepare_for_musetalk("anna")
    after = cache.get("anna")
    assert is_prepared(after)
    assert cache.get("anna") is after
    assert manager.info("anna").engine == "musetalk"
    np.testing.assert_array_equal(after.frames[0].picture, before.frames[0].picture)


@pytest.mark.usefixtures("warp_only")
def test_latents_of_another_version_are_not_used_and_kept(tmp_path: Path, base: Path) -> None:
    manager_of(tmp_path, base).prepare_for_musetalk("anna")
    weights_in(base, Version.V10)
    older = manager_of(tmp_path, base, musetalk_version="v1.0")
    assert older.info("anna").engine == "warp"
    assert not is_prepared(AvatarCache(older).get("anna"))
    assert older.prepare_for_musetalk("anna")
    assert is_prepared(AvatarCache(manager_of(tmp_path, base)).get("anna"))


@pytest.mark.usefixtures("warp_only")
def test_with_bisenets_weights_an_avatar_is_prepared_anew(tmp_path: Path, base: Path) -> None:
    manager = manager_of(tmp_path, base)
    manager.prepare_for_musetalk("anna")
    weights_in(base, bisenet=True)
    assert manager.info("anna").engine == "warp"
    assert manager.prepare_for_musetalk("anna")


@pytest.mark.usefixtures("warp_only")
def test_a_first_session_starts_at_once_and_the_avatar_is_prepared_meanwhile(
    tmp_path: Path, base: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    manager = manager_of(tmp_path, base)
    on_demand = LatentsOnDemand(manager)
    works = list[Future[None] | None]()
    cache = AvatarCache(manager, want_latents=lambda avatar_id: works.append(on_demand.want(avatar_id)))
    assert not is_prepared(cache.get("anna"))
    (work,) = works
    assert work is not None
    work.result(60)
    on_demand.close()
    assert is_prepared(cache.get("anna"))
    assert "shown with the warp engine while it is being prepared" in caplog.text
    assert "prepared for MuseTalk V1.5" in caplog.text


@pytest.mark.usefixtures("warp_only")
def test_nothing_is_prepared_where_musetalk_is_off_or_lacks_its_weights(tmp_path: Path) -> None:
    for base in (None, tmp_path / "empty"):
        wanted: list[str] = []
        AvatarCache(manager_of(tmp_path, base), want_latents=wanted.append).get("anna")
        assert wanted == []


@pytest.mark.usefixtures("warp_only")
@pytest.mark.parametrize("file", [LATENTS, "latents.json"])
def test_damaged_latents_are_said_removed_and_made_anew(tmp_path: Path, base: Path, file: str, caplog: pytest.LogCaptureFixture) -> None:
    manager, wanted = manager_of(tmp_path, base), list[str]()
    manager.prepare_for_musetalk("anna")
    for path in (tmp_path / "avatars" / ".latents").glob(f"anna.*/{file}"):
        path.write_bytes(b"x")
    cache = AvatarCache(manager, want_latents=wanted.append)
    assert not is_prepared(cache.get("anna"))
    assert wanted == ["anna"]
    assert "damaged latents" in caplog.text
    assert manager.prepare_for_musetalk("anna")
    assert is_prepared(cache.get("anna"))


@pytest.mark.usefixtures("warp_only")
def test_a_failure_is_tried_again_only_after_a_while(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried, now = fails_with(WeightsDamaged("cut off", advice="Get it."), monkeypatch), [0.0]
    on_demand = LatentsOnDemand(manager_of(tmp_path, base), now=lambda: now[0])
    for _ in range(2):
        work = on_demand.want("anna")
        assert work is not None
        work.result(60)
        assert on_demand.want("anna") is None
        now[0] += RETRY_SECONDS
    on_demand.close()
    assert len(tried) == 2
    assert "stays with the warp engine: cut off Get it." in caplog.text


@pytest.mark.usefixtures("warp_only")
def test_a_defect_in_the_preparation_is_logged_and_not_tried_again_at_once(
    tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tried = fails_with(RuntimeError("a defect"), monkeypatch)
    on_demand = LatentsOnDemand(manager_of(tmp_path, base), now=lambda: 0.0)
    work = on_demand.want("anna")
    assert work is not None
    work.result(60)
    assert on_demand.want("anna") is None
    on_demand.close()
    assert len(tried) == 1
    assert "RuntimeError: a defect" in caplog.text


@pytest.mark.usefixtures("warp_only")
def test_nothing_is_prepared_while_no_gpu_would_draw_it(tmp_path: Path, base: Path) -> None:
    on_demand = LatentsOnDemand(manager_of(tmp_path, base), useful=lambda: False)
    assert on_demand.want("anna") is None
    on_demand.close()


@pytest.mark.usefixtures("warp_only")
def test_close_ends_what_runs_and_forgets_what_waits(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager, started, tried = manager_of(tmp_path, base), threading.Event(), list[str]()

    def endless(request: object, frames: int, watch: Watch, **_: object) -> None:
        tried.append(str(frames))
        started.set()
        assert watch.cancel is not None
        assert watch.cancel.wait(60)
        raise Cancelled("The server stops.")

    monkeypatch.setattr(avatar_latents, "run_latent_preparation", endless)
    on_demand = LatentsOnDemand(manager)
    assert on_demand.want("anna")
    assert not on_demand.want("anna")
    assert on_demand.want("nobody")
    assert started.wait(60)
    on_demand.close()
    assert len(tried) == 1
    assert not on_demand.want("anna")
    assert latents_on_disk(tmp_path) == []


@pytest.mark.usefixtures("warp_only")
def test_an_avatar_that_is_deleted_meanwhile_leaves_no_latents(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manager = manager_of(tmp_path, base)

    def deleted(*arguments: object, **options: object) -> object:
        made = prepared_at_once(*arguments, **options)  # type: ignore[arg-type]
        manager.delete("anna")
        return made

    monkeypatch.setattr(avatar_latents, "run_latent_preparation", deleted)
    with pytest.raises(AvatarNotFound):
        manager.prepare_for_musetalk("anna")
    assert latents_on_disk(tmp_path) == []
