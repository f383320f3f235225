"""A call from the uploaded clip to the received frame: everything is measured on what Chromium was given to show and to play."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from browser import SOUND_RATE, Recorder, Recording, rgb
from clips import Clip, write_clip
from face_page import FacePage
from numpy.typing import NDArray
from playwright.sync_api import Browser, expect
from reference_speech import find, samples, shifted, speak
from running_server import RunningServer, running_server

from bench.lips import expected_opening, lip_gaps
from gpuserver.domain import TimedViseme
from gpuserver.musetalk.faces import FaceFinder
from gpuserver.musetalk.landmarks import INNER_LIPS, OUTER_LIPS

TEXT = "Bob and Mary make a map of the moon. Please bring my paper to the new room, maybe before we open the door."
CLIP = Clip(seconds=4, width=512, height=512, zoom=1.5)
IDLE_MS = 2_000
ATTEMPTS = 3  # a busy machine starves the browser; its own counters tell, and the face says the text again
AUDIBLE = 0.01  # of full scale; silence through Opus stays a hundred times below
LAG_WINDOW = 0.2  # seconds to each side


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What arrived while the face said TEXT.

    source: the uploaded clip as uint8 [n, height * 3 / 2, width], I420. pieces: [(first sample, last, likeness)] of the
    reference speech within the recorded sound. visemes: of the whole answer, on the page's clock.
    """

    recording: Recording
    source: NDArray[np.uint8]
    pieces: list[tuple[int, int, float]]
    visemes: list[TimedViseme]

    @property
    def start(self) -> float:
        return self.recording.sound_start + self.pieces[0][0] / SOUND_RATE

    @property
    def end(self) -> float:
        return self.recording.sound_start + self.pieces[-1][1] / SOUND_RATE


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with running_server(tmp_path_factory.mktemp("call")) as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "teacher.mp4", CLIP)


@pytest.fixture(scope="module")
def visit(browser: Browser, server: RunningServer, clip: Path) -> Iterator[FacePage]:
    """In a call with the face from the clip."""
    visit = FacePage(browser, server.url, viewport={"width": 1280, "height": 800}, locale="en-GB")
    visit.call(visit.add(clip))
    yield visit
    visit.close()


@pytest.fixture(scope="module")
def answer(visit: FacePage, clip: Path) -> Answer:
    for _ in range(ATTEMPTS):
        recording = _record(visit)
        if recording.undisturbed:
            break
    pieces, visemes, after = [], [], 0
    for speech in speak(TEXT):
        sound = samples(speech)
        first, likeness = find(sound, recording.sound[after:])
        first += after
        after = first + len(sound) * 3 // 4  # the next piece comes later, even where this one ends in silence
        pieces.append((first, first + len(sound), likeness))
        visemes += shifted(speech.visemes or (), recording.sound_start + first / SOUND_RATE)
    return Answer(recording, _pictures(clip), pieces, visemes)


def test_pictures_arrive_at_25_per_second(answer: Answer) -> None:
    times = answer.recording.picture_times
    spoken = (times >= answer.start) & (times < answer.end)
    assert answer.recording.pictures.shape[1:] == (CLIP.height * 3 // 2, CLIP.width)
    assert 22.5 < spoken.sum() / (answer.end - answer.start) < 26
    assert np.percentile(np.diff(times[spoken]), 95) < 0.1


def test_what_is_said_arrives_whole_and_as_the_voice_said_it(answer: Answer) -> None:
    for (first, last, likeness), speech in zip(answer.pieces, speak(TEXT), strict=True):
        heard, spoken = answer.recording.sound[first:last], samples(speech)
        assert likeness > 0.5  # another text reaches 0.2; a browser that stretches the sound on a busy machine costs some
        assert abs(_level(heard) - _level(spoken)) < 1.5  # dB
        assert _longest_gap(heard, spoken) < 0.06  # seconds
    assert -40 < _level(answer.recording.sound_between(answer.start, answer.end)) < -10


def test_before_the_first_word_there_is_silence(answer: Answer) -> None:
    assert np.abs(answer.recording.sound_between(0, answer.start - 0.05)).max() < AUDIBLE


def test_the_lips_follow_the_sound_within_40_ms(answer: Answer) -> None:
    correlation, lag = _lip_lag(answer)
    ahead = answer.recording.ahead  # what the browser adds by its own account
    print(f"lips late by {lag * 1000:.0f} ms as shown, {(lag + ahead) * 1000:.0f} ms as sent, correlation {correlation:.2f}")
    assert abs(lag + ahead) <= 0.040
    assert correlation >= 0.75


def test_the_mouth_moves_with_the_words_and_rests_with_them(answer: Answer) -> None:
    recording = answer.recording
    spoken, _ = lip_gaps(rgb(picture) for picture in recording.pictures_between(answer.start, answer.end))
    silent, _ = lip_gaps(rgb(picture) for picture in recording.pictures_between(0, answer.start - 0.2))
    assert np.isfinite(spoken).all()  # a face in every picture
    assert np.ptp(spoken) > 0.2  # of the mouth's width
    assert np.ptp(silent) < 0.08


@pytest.mark.parametrize("when", ["before the first word", "after the last word"])
def test_in_silence_the_uploaded_clip_is_shown_untouched(answer: Answer, when: str) -> None:
    recording = answer.recording
    around = (0.0, answer.start - 0.2) if when.startswith("before") else (answer.end + 0.3, np.inf)
    shown = recording.pictures_between(*around)
    assert len(shown) > 25
    matches = [_closest(picture, answer.source) for picture in shown]
    whole = [_psnr(picture, answer.source[match]) for picture, match in zip(shown, matches, strict=True)]
    assert min(whole) >= 25  # dB; the video codec's loss is in it
    mouths = [_psnr(*_mouths(picture, answer.source[match])) for picture, match in zip(shown, matches, strict=True)]
    assert np.median(mouths) > 30
    steps = np.abs(np.diff(matches))
    assert np.mean(steps <= 1) > 0.9  # forth and back, without a jump


def test_the_conversation_and_the_trace_are_shown(visit: FacePage, answer: Answer) -> None:
    assert visit.last_answer == TEXT
    visit.page.click("#trace summary")
    expect(visit.page.locator("#trace tr[data-stage=first_packet]")).to_be_visible()
    assert float(visit.page.get_attribute("#trace tr[data-stage=first_packet]", "data-ms") or "nan") < 2_000
    assert "hibari" in visit.page.locator("#trace").inner_text()


def test_escape_silences_the_face_and_the_page_says_how_far_it_came(visit: FacePage, answer: Answer) -> None:
    recorder = Recorder(visit.page)
    visit.write(TEXT, "say")
    visit.wait_until("speaking")
    visit.page.wait_for_timeout(1_200)
    visit.page.keyboard.press("Escape")
    visit.wait_until("listening")
    visit.page.wait_for_timeout(1_000)
    recording = recorder.stop()
    pressed = recording.when("key:Escape")
    assert np.abs(recording.sound_between(pressed - 0.5, pressed)).max() > AUDIBLE
    audible_after = np.abs(recording.sound_between(pressed, np.inf)) > AUDIBLE
    last_audible = len(audible_after) - int(np.argmax(audible_after[::-1])) if audible_after.any() else 0
    assert last_audible / SOUND_RATE < 0.4  # seconds: the server, the network and the browser's own buffer
    print(f"silent {last_audible / SOUND_RATE * 1000:.0f} ms after Escape")
    expect(visit.page.locator(".bubble[data-interrupted]").last).to_contain_text("stopped here")
    unheard = visit.page.locator(".bubble[data-interrupted] s").last.inner_text()
    assert 0 < len(unheard) < len(TEXT)


def test_a_question_is_answered_in_text_and_sound(visit: FacePage, answer: Answer) -> None:
    recorder = Recorder(visit.page)
    visit.write("How far away is the moon?")
    visit.hear_out()
    recording = recorder.stop()
    assert "How far away is the moon?" in visit.last_answer
    assert np.abs(recording.sound).max() > AUDIBLE * 5


def _record(visit: FacePage) -> Recording:
    """The text, with some silence before and after it."""
    visit.settle()
    recorder = Recorder(visit.page)
    visit.page.wait_for_timeout(IDLE_MS)
    visit.write(TEXT, "say")
    visit.hear_out()
    visit.page.wait_for_timeout(IDLE_MS)
    return recorder.stop()


def _pictures(video: Path) -> NDArray[np.uint8]:
    with av.open(str(video)) as container:
        return np.stack([frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)])


def _level(sound: NDArray[np.float32]) -> float:
    """Loudness in dB relative to full scale."""
    return float(10 * np.log10(np.mean(sound.astype(np.float64) ** 2) + 1e-12))


def _longest_gap(heard: NDArray[np.float32], spoken: NDArray[np.float32]) -> float:
    """Seconds for which nothing is heard although the voice speaks, in steps of 10 ms."""
    step = SOUND_RATE // 100
    steps = min(len(heard), len(spoken)) // step
    loud, quiet = (np.abs(x[: steps * step]).reshape(steps, step).max(axis=1) for x in (spoken, heard))
    missing = (loud > 3 * AUDIBLE) & (quiet < AUDIBLE)
    longest = run = 0
    for is_missing in missing:
        run = run + 1 if is_missing else 0
        longest = max(longest, run)
    return longest / 100


def _lip_lag(answer: Answer) -> tuple[float, float]:
    """Correlation of the lips' opening with what the visemes ask for, at the lag (seconds) where it is best; positive: lips late."""
    times = answer.recording.picture_times
    spoken = (times >= answer.start) & (times < answer.end)
    gaps, _ = lip_gaps(rgb(picture) for picture in answer.recording.pictures[spoken])
    middles = times[spoken] + 0.02  # a picture is drawn for the middle of its 40 ms
    lags = np.arange(-LAG_WINDOW, LAG_WINDOW + 1e-9, 0.005)
    wanted = [expected_opening(shifted(answer.visemes, -answer.start), middles - answer.start - lag) for lag in lags]
    correlations = [float(np.corrcoef(gaps, each)[0, 1]) for each in wanted]
    best = int(np.argmax(correlations))
    return correlations[best], float(lags[best])


def _closest(picture: NDArray[np.uint8], source: NDArray[np.uint8]) -> int:
    """The index of the source picture that is most like this one."""
    rows = picture.shape[0] * 2 // 3
    differences = source[:, :rows:4, ::4].astype(np.int16) - picture[:rows:4, ::4].astype(np.int16)
    return int(np.argmin(np.mean(differences.astype(np.float32) ** 2, axis=(1, 2))))


def _psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    error = float(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2))
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def _mouths(picture: NDArray[np.uint8], source: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The mouth's rectangle of both pictures, brightness only."""
    face = FaceFinder().find(rgb(source))
    assert face is not None
    points = face.landmarks[list(OUTER_LIPS + INNER_LIPS)]
    (left, top), (right, bottom) = points.min(axis=0).astype(int) - 4, points.max(axis=0).astype(int) + 4
    return picture[top:bottom, left:right], source[top:bottom, left:right]
