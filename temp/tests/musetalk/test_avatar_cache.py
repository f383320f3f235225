"""Loaded avatars: shared by all, new after a replacement, bounded in number."""

import shutil
from pathlib import Path

import pytest

from gpuserver.config import Settings
from gpuserver.errors import AvatarDamaged, AvatarNotFound
from gpuserver.musetalk.avatar_cache import AvatarCache
from gpuserver.musetalk.avatar_manager import AvatarManager


def manager_in(folder: Path) -> AvatarManager:
    manager = AvatarManager(Settings(_env_file=None, avatars_dir=folder / "avatars"))
    manager.start()
    return manager


@pytest.fixture(scope="module")
def portrait_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    manager = manager_in(tmp_path_factory.mktemp("portrait"))
    manager.create_demo("a")
    return manager.folder("a")


@pytest.fixture
def manager(tmp_path: Path, portrait_folder: Path) -> AvatarManager:
    """With three avatars, as restored from a backup."""
    manager = manager_in(tmp_path)
    for avatar_id in ("a", "b", "c"):
        shutil.copytree(portrait_folder, tmp_path / "avatars" / avatar_id)
    return manager


def test_everybody_shares_one_avatar(manager: AvatarManager) -> None:
    cache = AvatarCache(manager)
    assert cache.get("a") is cache.get("a")


def test_a_replaced_avatar_is_loaded_anew_and_the_old_one_stays_whole(manager: AvatarManager) -> None:
    cache = AvatarCache(manager)
    old = cache.get("a")
    row = old.frames[0].picture[100].copy()
    manager.create_demo("a", replace=True)
    new = cache.get("a")
    assert new is not old
    assert (old.frames[0].picture[100] == row).all()


def test_a_deleted_avatar_is_not_given_out(manager: AvatarManager) -> None:
    cache = AvatarCache(manager)
    cache.get("a")
    manager.delete("a")
    with pytest.raises(AvatarNotFound):
        cache.get("a")


def test_an_avatar_that_goes_while_it_is_looked_at_is_none(manager: AvatarManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said like this, a replacement in the same moment is loaded instead."""
    monkeypatch.setattr(manager, "read", lambda _, reader: reader(tmp_path / "gone"))
    with pytest.raises(AvatarNotFound):
        AvatarCache(manager).get("a")


def test_a_deleted_avatar_gives_its_disk_space_back_with_the_next_session(manager: AvatarManager, tmp_path: Path) -> None:
    cache = AvatarCache(manager)
    cache.get("a")
    manager.delete("a")
    cache.get("b")
    maps = Path("/proc/self/maps").read_text().splitlines()
    assert [line for line in maps if str(tmp_path) in line and "(deleted)" in line] == []
    assert any(str(tmp_path) in line for line in maps)


def test_a_damaged_avatar_is_said_so(manager: AvatarManager) -> None:
    (manager.folder("a") / "openings.npy").unlink()
    with pytest.raises(AvatarDamaged):
        AvatarCache(manager).get("a")


def test_the_least_recently_used_avatar_goes_first(manager: AvatarManager) -> None:
    cache = AvatarCache(manager, capacity=2)
    a, b = cache.get("a"), cache.get("b")
    assert cache.get("a") is a
    cache.get("c")
    assert cache.get("a") is a
    assert cache.get("b") is not b
