"""Settings: the only reader of the environment and of .env. Frozen, read once, validated at once.

Names are part of the contract; .env.example describes every one of them, and a test holds the two together.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

MAX_PORT = 65_535
Port = Annotated[int, Field(ge=1, le=MAX_PORT)]
TUTOR_MODEL = re.compile(r"^TUTOR_(?P<tutor>.+)_LLM_MODEL$", re.IGNORECASE)
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-\[\]:]+(/[\w./~\-]*)?")
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def default_video_dirs() -> tuple[Path, ...]:
    """data/videos, /tmp and the system's temporary directory, each once."""
    return tuple(dict.fromkeys((Path("data/videos"), Path("/tmp"), Path(tempfile.gettempdir()))))  # noqa: S108 - part of the contract


class Settings(BaseSettings):
    """Every setting, with its default. Durations are in seconds, sizes in the unit that the name carries."""

    model_config = SettingsConfigDict(env_file=".env", env_ignore_empty=True, extra="ignore", frozen=True, populate_by_name=True)

    management_api_host: str = "127.0.0.1"
    management_api_port: Port = 9000
    public_url: str | None = None
    media_host: str = "127.0.0.1"
    media_port: Port = 8615
    media_workers: Annotated[int, Field(ge=1, le=64)] = 1

    port: Port = 8001
    gateway_host: str = "127.0.0.1"
    tts_port: Port | None = None

    enable_musetalk: bool = False
    musetalk_base: Path | None = None
    musetalk_conda_env: Path | None = None
    musetalk_version: Literal["auto", "v1.5", "v1.0"] = "auto"
    musetalk_mask: Literal["auto", "jaw", "raw", "neck"] = "auto"
    musetalk_bbox_shift: Annotated[int, Field(ge=-100, le=100)] = 0
    musetalk_extra_margin: Annotated[int, Field(ge=0, le=100)] = 10
    ffmpeg_path: str = "ffmpeg"

    avatars_dir: Path = Path("data/avatars")
    video_dirs: Annotated[tuple[Path, ...], NoDecode] = Field(default_factory=default_video_dirs)
    max_upload_mb: Annotated[int, Field(ge=1)] = 500
    avatar_max_disk_gb: Annotated[float, Field(gt=0)] | None = None

    max_sessions: Annotated[int, Field(ge=1)] = 10
    session_timeout_seconds: Annotated[float, Field(gt=0)] = 3600

    llm: Literal["auto", "ollama", "openai", "echo"] = "auto"
    ollama_base_url: str = "http://localhost:11434"
    llm_default_model: str = "mistral-nemo:12b-instruct-2407-fp16"
    llm_temperature: Annotated[float, Field(ge=0, le=2)] = 0.4
    openai_base_url: str | None = None
    openai_api_key: SecretStr | None = None

    tts: Literal["auto", "edge-tts", "hibari", "espeak", "http"] = "auto"
    tts_voice: str = "auto"
    tts_service_url: str | None = None
    tts_service_key: SecretStr | None = None
    lipsync_service_url: str | None = None

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = ()
    allow_insecure: bool = False
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    rate_limit: str = "120/minute"
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    internal_secret: SecretStr | None = None

    webrtc_public_ip: Annotated[tuple[str, ...], NoDecode] = ()
    webrtc_udp_port: Port | None = None
    webrtc_port_min: Port | None = None
    webrtc_port_max: Port | None = None
    webrtc_ice_policy: Literal["all", "relay"] = "all"
    webrtc_stun_server: str | None = None
    webrtc_turn_server: str | None = None
    webrtc_turn_server_local: str | None = None
    webrtc_turn_username: str | None = None
    webrtc_turn_password: SecretStr | None = None

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"

    tutor_models: Mapping[str, str] = Field(default_factory=dict, description="TUTOR_<id>_LLM_MODEL, by tutor id")

    @field_validator("video_dirs", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        return tuple(Path(part) for part in value.split(os.pathsep) if part) if isinstance(value, str) else value

    @field_validator("api_keys", "cors_origins", "trusted_proxies", "webrtc_public_ip", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("log_level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("public_url", "tts_service_url", "lipsync_service_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is not None and not WEB_ADDRESS.fullmatch(value):
            raise ValueError("must be an address such as https://gpu.example.org")
        return value

    @field_validator("ollama_base_url", "openai_base_url")
    @classmethod
    def _holds_no_password(cls, value: str | None) -> str | None:
        if value is not None and "@" in value:
            raise ValueError("must hold no user name or password: students are told this address when nothing answers there")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for proxy in value:
            ipaddress.ip_network(proxy, strict=False)
        return value

    @field_validator("webrtc_public_ip")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        try:
            addresses = [ipaddress.ip_address(address) for address in value]
        except ValueError as error:
            raise ValueError("must be an IP address such as 203.0.113.7, or several separated by commas") from error
        for address in addresses:
            if address.is_unspecified or address.is_multicast or address.is_link_local:
                raise ValueError(f"must be an address that browsers can send to, not {address}")
        return tuple(str(getattr(address, "ipv4_mapped", None) or address) for address in addresses)

    @model_validator(mode="after")
    def _webrtc_ports_agree(self) -> Settings:
        first, last = self.webrtc_port_min, self.webrtc_port_max
        if (first is None) != (last is None):
            raise ValueError("WEBRTC_PORT_MIN and WEBRTC_PORT_MAX belong together; only one of them is set")
        if first is not None and last is not None and first > last:
            raise ValueError("WEBRTC_PORT_MIN must not be greater than WEBRTC_PORT_MAX")
        if self.webrtc_udp_port is not None and self.webrtc_udp_port + self.media_workers - 1 > MAX_PORT:
            raise ValueError("WEBRTC_UDP_PORT is too high for MEDIA_WORKERS: each worker has the next port")
        return self

    @model_validator(mode="after")
    def _ports_differ(self) -> Settings:
        if self.management_api_port == self.media_port:
            raise ValueError("MANAGEMENT_API_PORT and MEDIA_PORT must differ")
        if self.tts_port in {self.management_api_port, self.media_port}:
            raise ValueError("TTS_PORT must differ from MANAGEMENT_API_PORT and MEDIA_PORT")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings, dotenv_settings, TutorModels(settings_cls))

    @property
    def media_url(self) -> str:
        """Where the management API reaches the media server; plain HTTP on this machine."""
        host = "127.0.0.1" if self.media_host in {"0.0.0.0", "::"} else self.media_host  # noqa: S104 - compared, not bound
        return f"http://{'[' + host + ']' if ':' in host else host}:{self.media_port}"

    @property
    def lipsync_url(self) -> str:
        """Where the gateway reaches avatars and WebRTC: LIPSYNC_SERVICE_URL, else this machine's media server."""
        return (self.lipsync_service_url or self.media_url).rstrip("/")

    @property
    def bound_to_loopback(self) -> bool:
        """Whether only this machine can call the management API."""
        return self.management_api_host in LOOPBACK_HOSTS

    @property
    def is_development(self) -> bool:
        """Loopback only and no keys: a missing video may then be replaced by the sample face."""
        return self.bound_to_loopback and not self.api_keys and not self.enable_musetalk


class TutorModels(PydanticBaseSettingsSource):
    """Collects TUTOR_<id>_LLM_MODEL from the environment and .env into `tutor_models`."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        from dotenv import dotenv_values

        env_file = self.config.get("env_file")
        values: dict[str, str | None] = dict(dotenv_values(env_file)) if isinstance(env_file, str) else {}
        values.update(os.environ)
        models = {match["tutor"]: value for name, value in values.items() if value and (match := TUTOR_MODEL.match(name))}
        return {"tutor_models": models} if models else {}


def explain(error: ValidationError) -> str:
    """One plain line per wrong setting, without the values (they may be secrets)."""
    lines = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        said = item["msg"].removeprefix("Value error, ")
        lines.append(f"{str(item['loc'][0]).upper()}: {said}" if item["loc"] else said)
    return "\n".join(lines)
