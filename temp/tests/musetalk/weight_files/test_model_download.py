"""Downloading weights from a fake hub on a real port, with the troubles of a network. Nothing waits: pauses are noted, not made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_hub import COMMIT, FakeHub, served

from gpuserver.errors import Conflict, DiskFull, UpstreamFailed, WeightsDamaged
from gpuserver.musetalk.weight_files import model_download
from gpuserver.musetalk.weight_files.model_download import PATIENCE, Downloader
from gpuserver.musetalk.weight_files.model_files import ModelFile, Source
from gpuserver.musetalk.weight_files.model_hub import Hub

CONTENT = bytes(range(256)) * 800
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = ModelFile("unet/unet.pth", len(CONTENT), SHA256, Source("official/weights", COMMIT, "deep/unet.pth"))


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with served(FakeHub({"official/weights/deep/unet.pth": CONTENT})) as fake:
        yield fake


class Operator:
    """Who downloads, and what was seen."""

    def __init__(self, base: Path, hub: FakeHub):
        self.base = base
        self.pauses: list[float] = []
        self.stages: list[tuple[str, int, int]] = []
        self.downloader = Downloader(base, Hub(hub.url), progress=self._see, pause=self.pauses.append)

    def _see(self, _path: str, stage: str, done: int, total: int) -> None:
        self.stages.append((stage, done, total))

    def run(self, file: ModelFile = FILE) -> bytes:
        self.downloader.run([file])
        return (self.base / "models" / file.path).read_bytes()

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.base / "models").rglob("*") if path.is_file() and path.name != ".lock")


@pytest.fixture
def operator(tmp_path: Path, hub: FakeHub) -> Operator:
    return Operator(tmp_path, hub)


def test_a_file_is_fetched_at_its_revision_compared_and_put_in_place(operator: Operator, hub: FakeHub) -> None:
    assert operator.run() == CONTENT
    assert operator.files == ["unet.pth"]
    assert {path for _, path, _ in hub.requests} == {f"/official/weights/resolve/{COMMIT}/deep/unet.pth"}
    assert ("downloading", len(CONTENT), len(CONTENT)) in operator.stages
    assert operator.stages[-1] == ("checking", len(CONTENT), len(CONTENT))


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(operator: Operator, hub: FakeHub) -> None:
    hub.cut_after = [70_000, 30_000]
    assert operator.run() == CONTENT
    assert hub.ranges[0] is None
    starts = [int(span.removeprefix("bytes=").rstrip("-")) for span in hub.ranges[1:] if span]
    assert len(starts) == 2
    assert 0 < starts[0] <= 70_000
    assert starts[0] < starts[1] <= starts[0] + 30_000


def test_the_next_run_goes_on_where_the_last_one_gave_up(tmp_path: Path, operator: Operator, hub: FakeHub) -> None:
    hub.cut_after = [50_000] + [0] * (PATIENCE - 1)
    with pytest.raises(UpstreamFailed, match="cannot be downloaded") as caught:
        operator.run()
    assert "what has arrived is kept" in caught.value.advice
    kept = next((tmp_path / "models" / ".partial").glob("unet__*")).stat().st_size
    assert 0 < kept <= 50_000
    hub.requests.clear()
    assert Operator(tmp_path, hub).run() == CONTENT
    assert hub.ranges == [f"bytes={kept}-"]


def test_a_failing_hub_is_asked_again_with_growing_pauses(operator: Operator, hub: FakeHub) -> None:
    hub.statuses = [500, 503]
    assert operator.run() == CONTENT
    assert operator.pauses == [1.0, 2.0]


def test_a_hub_that_keeps_failing_is_given_up_in_plain_words(operator: Operator, hub: FakeHub) -> None:
    hub.statuses = [500] * 99
    with pytest.raises(UpstreamFailed, match="status 500"):
        operator.run()
    assert len(hub.requests) == PATIENCE


def test_a_file_that_the_hub_does_not_have_is_not_asked_for_again(operator: Operator, hub: FakeHub) -> None:
    hub.files.clear()
    with pytest.raises(UpstreamFailed, match="status 404") as caught:
        operator.run()
    assert "mirror" in caught.value.advice
    assert len(hub.requests) == 1


def test_another_content_is_refused_and_removed(operator: Operator, hub: FakeHub) -> None:
    hub.files["official/weights/deep/unet.pth"] = CONTENT[::-1]
    with pytest.raises(WeightsDamaged, match="sha256"):
        operator.run()
    assert operator.files == []


def test_without_a_known_hash_the_one_that_the_hub_announces_counts(operator: Operator, hub: FakeHub) -> None:
    hub.announces = CONTENT[::-1]
    unknown = ModelFile(FILE.path, FILE.size, None, FILE.source)
    with pytest.raises(WeightsDamaged):
        operator.run(unknown)
    hub.announces = None
    assert operator.run(unknown) == CONTENT


def test_a_hub_that_sends_more_than_it_announced_does_not_fill_the_disk(tmp_path: Path, operator: Operator, hub: FakeHub) -> None:
    hub.announces = CONTENT[:100]
    with pytest.raises(UpstreamFailed, match="more than the file has"):
        operator.run()
    assert list((tmp_path / "models" / ".partial").glob("unet__*")) == []


def test_what_arrived_of_something_longer_is_forgotten(tmp_path: Path, operator: Operator, hub: FakeHub) -> None:
    partial = tmp_path / "models" / ".partial" / f"unet__unet.pth.{COMMIT[:12]}"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(bytes(len(CONTENT) + 5))
    assert operator.run() == CONTENT


def test_a_damaged_file_in_place_is_replaced(tmp_path: Path, operator: Operator) -> None:
    target = tmp_path / "models" / FILE.path
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT[:100])
    assert operator.run() == CONTENT


def test_without_room_nothing_is_fetched(operator: Operator, hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_download, "MARGIN_BYTES", 1 << 60)
    with pytest.raises(DiskFull, match="GB are free"):
        operator.run()
    assert hub.requests == []


def test_two_downloads_into_one_folder_do_not_meet(tmp_path: Path, operator: Operator, hub: FakeHub) -> None:
    def run_another(_path: str, _stage: str, _done: int, _total: int) -> None:
        with pytest.raises(Conflict, match="Another download"):
            operator.run()

    Downloader(tmp_path, Hub(hub.url), progress=run_another).run([FILE])


def test_a_hub_that_is_not_there_is_a_plain_message(tmp_path: Path) -> None:
    with served(FakeHub()) as gone:
        address = gone.url
    downloader = Downloader(tmp_path, Hub(address), pause=lambda _seconds: None)
    with pytest.raises(UpstreamFailed, match="does not answer") as caught:
        downloader.run([FILE])
    assert "HF_ENDPOINT" in caught.value.advice
    assert "copy it to" in caught.value.advice
