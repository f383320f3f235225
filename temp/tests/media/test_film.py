from pathlib import Path

import av
import numpy as np
import pytest
import structlog
from fakes import FakeEngine, FakeVoice, fake_avatar, mouth_luma

from gpuserver.domain import Viseme
from gpuserver.errors import InvalidInput, VoiceFailed
from gpuserver.media.film import FilmReport, render_film

AVATAR = fake_avatar(40)
TEXT = "One two. Three four five."  # 0.42 s -> 11 frames, 0.62 s -> 16 frames


def read(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """The pictures (I420) and the sound (float, 48 kHz) of a film."""
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return pictures, sound


async def film(tmp_path: Path, text: str = TEXT, voice: FakeVoice | None = None) -> FilmReport:
    return await render_film(AVATAR, FakeEngine(), voice or FakeVoice(), text, tmp_path / "film.mp4")


async def test_a_film_shows_idle_then_speech_then_idle(tmp_path: Path) -> None:
    report = await film(tmp_path)
    pictures, _ = read(report.path)
    assert report.frames == len(pictures) == 12 + 27 + 12
    assert (report.speech_from, report.speech_to) == pytest.approx((0.48, 39 * 0.04))
    assert report.text == TEXT
    mouths = [mouth_luma(picture) for picture in pictures]
    assert max(mouths[:12]) < 80
    assert min(mouths[15:38]) > 170
    assert max(mouths[42:]) < 80


async def test_the_loop_of_the_avatar_goes_through_the_film_without_a_jump(tmp_path: Path) -> None:
    pictures, _ = read((await film(tmp_path)).path)
    brightness = [int(np.median(picture[:4])) for picture in pictures]
    assert brightness == pytest.approx([16 + AVATAR.frame_at(position).index for position in range(len(pictures))], abs=1)


async def test_the_sound_is_where_the_report_says(tmp_path: Path) -> None:
    report = await film(tmp_path)
    _, sound = read(report.path)
    audible = np.flatnonzero(np.abs(sound) > 0.01) / 48_000
    assert audible[0] == pytest.approx(report.speech_from, abs=0.03)
    assert audible[-1] == pytest.approx(report.speech_to - 0.04, abs=0.04)


async def test_the_log_times_a_filmed_answer_from_when_it_was_asked(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as logs:
        await film(tmp_path)
    (ended,) = [line for line in logs if line["event"] == "turn_ended"]
    assert 0 <= ended["ms"]["first_packet"] <= ended["ms"]["done"]


async def test_the_driving_visemes_are_told_in_the_films_own_time(tmp_path: Path) -> None:
    report = await film(tmp_path)
    spoken = [viseme for viseme in report.visemes if viseme.viseme is Viseme.PP]
    second_sentence = 0.48 + 11 * 0.04
    expected = [0.48, 0.68, second_sentence, second_sentence + 0.2, second_sentence + 0.4]
    assert [viseme.start for viseme in spoken] == pytest.approx(expected)


async def test_a_sentence_that_could_not_be_spoken_is_reported(tmp_path: Path) -> None:
    report = await film(tmp_path, voice=FakeVoice(unspeakable="Three"))
    assert report.text == "One two."
    assert any("Three four five." in notice for notice in report.notices)


async def test_a_text_nobody_can_speak_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(VoiceFailed):
        await film(tmp_path, voice=FakeVoice(unspeakable="."))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["  ", "😀 🎉"], ids=["empty", "emoji"])
async def test_a_text_without_words_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput):
        await film(tmp_path, text)
    assert list(tmp_path.iterdir()) == []


async def test_what_is_true_of_every_sentence_is_reported_once(tmp_path: Path) -> None:
    report = await film(tmp_path, voice=FakeVoice(fallback="The other voice speaks."))
    assert report.notices == ("The other voice speaks.",)


async def test_whoever_waits_is_told_how_far_the_film_is(tmp_path: Path) -> None:
    told: list[float] = []
    report = await render_film(AVATAR, FakeEngine(), FakeVoice(), TEXT, tmp_path / "film.mp4", filmed=told.append)
    assert told == pytest.approx([(frame + 1) * 0.04 for frame in range(report.frames)])
