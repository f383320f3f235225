"""A LiveTalking client and a WHEP player in Chromium: measured on what they were given to show and to play."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from pathlib import Path

import av
import httpx
import numpy as np
import pytest
from browser import Recorder
from livetalking_page import LiveTalkingPage
from playwright.sync_api import Browser
from received_answer import AUDIBLE, ReceivedAnswer, receive_answer
from reference_speech import find, samples, speak
from running_server import free_ports, running_server

TEXT = "Bob and Mary make a map of the moon. Please bring my paper to the new room."
MOST_LAG = 0.040  # seconds to either side, EBU R37
ANOTHER_TEXT = 0.3  # of likeness; another text reaches 0.2, and a starved browser stretches what it plays


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of the media server."""
    (port,) = free_ports(1)
    with running_server(tmp_path_factory.mktemp("livetalking"), MEDIA_PORT=str(port)):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def visit(browser: Browser, url: str) -> Iterator[LiveTalkingPage]:
    visit = LiveTalkingPage(browser, url)
    visit.start()
    yield visit
    assert visit.complaints == []
    visit.close()


@pytest.fixture(scope="module")
def answer(visit: LiveTalkingPage) -> ReceivedAnswer:
    return receive_answer(visit, TEXT)


def test_a_whep_player_sees_the_avatar_and_hears_what_a_back_end_says(browser: Browser, url: str) -> None:
    player = LiveTalkingPage(browser, url)
    address = player.play_whep("demo")
    player.settle()
    recorder = Recorder(player.page)
    assert httpx.post(f"{url}{address}/say", json={"text": "A map of the moon."}).status_code == 200
    player.page.wait_for_timeout(4_000)
    recording = recorder.stop()
    likeness = max(find(samples(piece), recording.sound)[1] for piece in speak("A map of the moon."))
    seconds = float(np.ptp(recording.picture_times))
    print(f"{len(recording.pictures) / seconds:.1f} pictures per second, likeness {likeness:.2f}")
    assert len(recording.pictures) / seconds > 15  # the rate itself is the subject of test_call.py
    assert likeness > ANOTHER_TEXT
    assert httpx.delete(f"{url}{address}").status_code == 200
    player.page.wait_for_function("observedConnection.connectionState !== 'connected'")
    player.close()


def test_a_page_of_livetalking_sees_the_avatar_speak_in_time(answer: ReceivedAnswer) -> None:
    times = answer.recording.picture_times
    spoken = (times >= answer.start) & (times < answer.end)
    assert 15 < spoken.sum() / (answer.end - answer.start) < 26  # the rate itself is the subject of test_call.py
    assert min(piece.likeness for piece in answer.pieces) > ANOTHER_TEXT
    lag, correlation = answer.lip_lag()
    ahead = answer.recording.ahead
    print(f"lips {lag * 1000:+.0f} ms, correlation {correlation:.2f}, the browser's own {ahead * 1000:+.0f} ms")
    assert abs(lag + ahead) <= MOST_LAG
    assert correlation > 0.6


def test_a_sound_file_from_the_page_is_heard_as_it_is_and_recorded(visit: LiveTalkingPage, url: str, tmp_path: Path) -> None:
    spoken = np.concatenate([samples(piece) for piece in speak("A map of the moon.")])
    recorder = Recorder(visit.page)
    assert visit.call("record('start_record')") == {"code": 0, "msg": "ok"}
    assert visit.call("humanAudio(argument)", list(wav(spoken))) == {"code": 0, "msg": "ok"}
    visit.hear_out()
    ended = visit.call("record('end_record')")
    assert ended["code"] == 0
    visit.page.wait_for_timeout(1_000)
    _, heard = find(spoken, recorder.stop().sound)
    film = tmp_path / "film.mp4"
    film.write_bytes(httpx.get(f"{url}/record/{visit.call('sessionid()')}").content)
    with av.open(str(film)) as container:
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    with av.open(str(film)) as container:
        pictures = sum(1 for _ in container.decode(video=0))
    _, filmed = find(spoken, sound)
    print(f"likeness: in the browser {heard:.2f}, in the film {filmed:.2f}")
    assert heard > ANOTHER_TEXT
    assert filmed > ANOTHER_TEXT
    assert pictures / 25 == pytest.approx(ended["data"]["seconds"])


def test_an_interruption_silences_it(visit: LiveTalkingPage) -> None:
    visit.write(TEXT, "say")
    recorder = Recorder(visit.page)
    visit.page.wait_for_timeout(1_500)
    assert visit.call("interruptTalk()") == {"code": 0, "msg": "ok"}
    interrupted = visit.call("performance.now()") / 1000
    visit.hear_out()
    visit.page.wait_for_timeout(1_000)
    recording = recorder.stop()
    assert np.abs(recording.sound_between(interrupted - 0.7, interrupted)).max() > AUDIBLE
    assert np.abs(recording.sound_between(interrupted + 0.4, np.inf)).max() < AUDIBLE


def wav(sound: np.ndarray) -> bytes:
    """float32 at 48 kHz as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((1, 2, 48_000, 0, "NONE", ""))
        out.writeframes((sound * 32767).astype(np.int16).tobytes())
    return file.getvalue()
