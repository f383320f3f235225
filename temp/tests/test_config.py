"""Settings: names, lists, refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from gpuserver.config import Settings, explain


def test_the_environment_is_read_by_the_contracts_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANAGEMENT_API_PORT", "9100")
    monkeypatch.setenv("VIDEO_DIRS", "/a:/b c")
    monkeypatch.setenv("TRUSTED_PROXIES", "10.0.0.0/8, 192.168.1.1")
    settings = Settings(_env_file=None)
    assert settings.management_api_port == 9100
    assert settings.video_dirs == (Path("/a"), Path("/b c"))
    assert settings.trusted_proxies == ("10.0.0.0/8", "192.168.1.1")


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUSETALK_CONDA_ENV", "")
    assert Settings(_env_file=None).musetalk_conda_env is None


def test_dotenv_gives_tutors_their_models_and_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TUTOR_7_LLM_MODEL=small\nTUTOR_8_LLM_MODEL=large\nMAX_SESSIONS=3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUTOR_8_LLM_MODEL", "huge")
    settings = Settings()
    assert dict(settings.tutor_models) == {"7": "small", "8": "huge"}
    assert settings.max_sessions == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("management_api_port", "0"),
        ("max_sessions", "0"),
        ("llm", "parrot"),
        ("public_url", "gpu.example.org"),
        ("public_url", "javascript:alert(1)"),
        ("trusted_proxies", "not-an-address"),
        ("log_level", "loud"),
        ("ollama_base_url", "http://teacher:secret@gpu:11434"),
        ("openai_base_url", "https://teacher:secret@llm.example.org/v1"),
    ],
)
def test_a_wrong_setting_is_named_without_its_value(name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **{name: value})  # type: ignore[arg-type]
    assert explain(caught.value).startswith(name.upper())
    assert "secret" not in explain(caught.value)


@pytest.mark.parametrize("url", ["http://gpu-box:8615", "http://lip_sync_1:8615", "http://[::1]:8615", "https://school.example.org/lips"])
def test_services_are_found_by_any_name_that_networks_give_them(url: str) -> None:
    assert Settings(_env_file=None, lipsync_service_url=url).lipsync_url == url


@pytest.mark.parametrize("values", [{"webrtc_port_min": 5000}, {"media_port": 9000}])
def test_settings_that_do_not_fit_together_are_said_so_in_a_plain_sentence(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, **values)  # type: ignore[arg-type]
    assert re.match(r"(WEBRTC_PORT_MIN|MANAGEMENT_API_PORT) and \w+ (belong together|must differ)", explain(caught.value))


def test_a_wrong_secret_is_not_repeated() -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(_env_file=None, internal_secret=["hunter2"])
    assert "hunter2" not in explain(caught.value)


@pytest.mark.parametrize("port", [9000, 8615])
def test_the_speech_services_port_is_one_of_its_own(port: int) -> None:
    with pytest.raises(ValidationError, match="TTS_PORT must differ"):
        Settings(_env_file=None, tts_port=port)


def test_the_two_ports_must_differ() -> None:
    with pytest.raises(ValidationError, match="must differ"):
        Settings(_env_file=None, management_api_port=8615)


@pytest.mark.parametrize(
    ("host", "url"), [("127.0.0.1", "http://127.0.0.1:8615"), ("0.0.0.0", "http://127.0.0.1:8615"), ("::1", "http://[::1]:8615")]
)
def test_media_url_is_where_this_machine_reaches_it(host: str, url: str) -> None:
    assert Settings(_env_file=None, media_host=host).media_url == url


@pytest.mark.parametrize(
    ("overrides", "development"),
    [({}, True), ({"api_keys": "k"}, False), ({"management_api_host": "0.0.0.0"}, False), ({"enable_musetalk": True}, False)],
)
def test_only_an_open_loopback_server_is_for_development(overrides: dict[str, object], development: bool) -> None:
    assert Settings(_env_file=None, **overrides).is_development is development  # type: ignore[arg-type]
