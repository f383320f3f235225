"""The secret between the processes, and the tokens of sessions."""

from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor

import pytest
from aiohttp.test_utils import make_mocked_request
from conftest import MakeSettings

from gpuserver.config import Settings
from gpuserver.errors import CannotStart, Unauthorized
from gpuserver.web.auth import engine_token_of, internal_secret, require_internal


def test_the_secret_is_generated_once_and_only_its_owner_reads_it(settings: Settings) -> None:
    secret = internal_secret(settings)
    file = settings.avatars_dir.parent / ".secret"
    assert len(secret) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert internal_secret(settings) == secret
    assert list(file.parent.iterdir()) == [file]


def test_processes_that_start_at_once_share_one_secret(settings: Settings) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = set(pool.map(lambda _: internal_secret(settings), range(32)))
    assert len(secrets) == 1
    assert "" not in secrets


@pytest.mark.parametrize("content", [b"", b" \n", b"two\nlines", "geheimnis ü".encode(), b"\xff\x00"])
def test_a_file_that_holds_no_secret_is_refused(settings: Settings, content: bytes) -> None:
    file = settings.avatars_dir.parent / ".secret"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.raises(CannotStart, match=r"\.secret holds no secret"):
        internal_secret(settings)


def test_an_empty_secret_lets_nobody_through() -> None:
    for headers in ({}, {"X-Internal-Secret": ""}):
        with pytest.raises(Unauthorized):
            require_internal(make_mocked_request("GET", "/", headers=headers), "")


def test_a_given_secret_writes_nothing(make_settings: MakeSettings) -> None:
    settings = make_settings(internal_secret="given")
    assert internal_secret(settings) == "given"
    assert not settings.avatars_dir.parent.exists()


@pytest.mark.parametrize(
    ("headers", "path", "token"),
    [
        ({"Authorization": "Bearer abc"}, "/", "abc"),
        ({"Authorization": "bearer abc"}, "/", "abc"),
        ({}, "/?token=abc", "abc"),
        ({"Authorization": "Bearer "}, "/?token=abc", "abc"),
        ({"Authorization": "Basic abc"}, "/", ""),
        ({}, "/", ""),
        ({}, f"/?token={'x' * 128}", "x" * 128),
        ({}, f"/?token={'x' * 129}", ""),
        ({}, "/?token=a%00b", ""),
        ({}, "/?token=abc%0a", ""),
        ({}, "/?token=%E5%A4%B4", ""),
        ({"Authorization": "Bearer a b"}, "/", ""),
    ],
)
def test_a_token_comes_as_bearer_or_in_the_query(headers: dict[str, str], path: str, token: str) -> None:
    assert engine_token_of(make_mocked_request("GET", path, headers=headers)) == token


@pytest.mark.parametrize("headers", [{}, {"X-Internal-Secret": ""}, {"X-Internal-Secret": "secre"}, {"X-Internal-Secret": "sécret"}])
def test_only_the_other_process_gets_through(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthorized):
        require_internal(make_mocked_request("GET", "/", headers=headers), "secret")
    require_internal(make_mocked_request("GET", "/", headers={"X-Internal-Secret": "secret"}), "secret")
