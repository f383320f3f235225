"""The import direction that ARCHITECTURE.md draws: every import of the package is read, those inside functions too."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "gpuserver"

# What each part may import of the package, besides itself. A part is a folder or a module of gpuserver.
BASE = {"config", "errors", "__init__"}
NOUNS = {"domain", "wire", "messages", "player_wire", "session_names", "interpreter", *BASE}
ALLOWED = {
    "__init__": set[str](),
    "config": set[str](),
    "errors": set[str](),
    "domain": BASE,
    "wire": BASE,
    "messages": {"wire", *BASE},
    "player_wire": {"wire", *BASE},
    "session_names": {"player_wire", *BASE},
    "interpreter": set[str](),
    "systemd": set[str](),
    "musetalk": NOUNS,
    "pipeline": {"musetalk", *NOUNS},
    "web": {"pipeline", "musetalk", "systemd", *NOUNS},
    "media": {"web", "pipeline", "musetalk", *NOUNS},
    "api": {"web", "pipeline", "musetalk", *NOUNS},
    "gateway": {"web", "pipeline", "musetalk", *NOUNS},
    "management_api": {"api", "gateway", "web", "pipeline", "musetalk", *NOUNS},
    "openapi_documents": {"management_api", "media", "web", "musetalk", *NOUNS},
    "startup_report": set[str](),
    "unified_server": {"startup_report", "web", *NOUNS},
    "gateway_workers": {"unified_server", "web", *NOUNS},
    "media_router": {"unified_server", "web", "pipeline", "musetalk", *NOUNS},
    "running_media_server": {"web", *NOUNS},
    "sessions_now": {"running_media_server", *NOUNS},
    "cli_settings": BASE,
    "cli_files": set[str](),
    "cli_avatars": {"cli_settings", "sessions_now", "musetalk", *NOUNS},
    "cli_models": {"cli_settings", "musetalk", *NOUNS},
    "cli_doctor": {"cli_settings", "running_media_server", "media", *NOUNS},
    "cli": {
        "cli_avatars",
        "cli_doctor",
        "cli_models",
        "cli_files",
        "cli_settings",
        "unified_server",
        "gateway_workers",
        "gateway",
        "management_api",
        "openapi_documents",
        "media",
        "media_router",
        "api",
        "web",
        "pipeline",
        "musetalk",
        *NOUNS,
    },
    "__main__": {"cli"},
}

# What a part may not import of other packages, at any place.
FORBIDDEN = {
    "musetalk": {"asyncio", "aiohttp", "aiortc"},
    "pipeline": {"torch", "cv2", "aiortc", "aiohttp.web"},
    "web": {"torch", "cv2", "av", "aiortc"},
    "api": {"torch", "cv2", "av", "aiortc"},
    "gateway": {"torch", "cv2", "av", "aiortc"},
    "media_router": {"torch", "cv2", "av", "aiortc"},
}
NUMPY_AND_STDLIB_ONLY = [
    "domain.py",
    "errors.py",
    "musetalk/renderer.py",
    *(
        f"musetalk/rendering/{name}.py"
        for name in ("render_worker", "render_stats", "dispatch", "schedule", "ladder", "lending", "compositor")
    ),
]
HEAVY = {"torch", "cv2", "av", "aiortc", "onnxruntime", "ai_edge_litert", "openai", "ollama", "edge_tts", "hibari_tts", "soxr"}


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imports_package(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    part = _part(path)
    assert part in ALLOWED, f"{part} has no place among the layers"
    parts = {[*name.split("."), "__init__"][1] for name in _imports(path) if _imports_package(name, "gpuserver")}
    known = {used if used in ALLOWED else "__init__" for used in parts}
    assert known - {part} <= ALLOWED[part]


@pytest.mark.parametrize("path", [path for path in _modules() if _part(path) in FORBIDDEN], ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_part_imports_what_belongs_to_another(path: Path) -> None:
    wrong = [name for name in _imports(path) for package in FORBIDDEN[_part(path)] if _imports_package(name, package)]
    assert wrong == []


@pytest.mark.parametrize("module", NUMPY_AND_STDLIB_ONLY)
def test_the_hot_path_needs_numpy_and_the_standard_library_only(module: str) -> None:
    roots = {name.split(".")[0] for name in _imports(PACKAGE / module)}
    assert roots - sys.stdlib_module_names <= {"numpy", "gpuserver"}


def _loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(result.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "management_api",
        "cli",
        "unified_server",
        "musetalk.avatar_manager",
        "web.avatar_routes",
        "web.relay",
        "web.lifeline",
        "gateway.server",
        "media_router.server",
    ],
)
def test_process_1_loads_nothing_heavy(module: str) -> None:
    assert _loaded_by(f"import gpuserver.{module}") & HEAVY == set()


def test_a_running_management_api_loads_nothing_heavy() -> None:
    statement = (
        "from gpuserver import management_api; from gpuserver.config import Settings; "
        "from gpuserver.musetalk.avatar_manager import AvatarManager; "
        "settings = Settings(_env_file=None, internal_secret='s'); management_api.create_app(settings, AvatarManager(settings))"
    )
    assert _loaded_by(statement) & HEAVY == set()


def test_the_supervisor_does_not_even_load_aiohttp() -> None:
    assert _loaded_by("import gpuserver.unified_server") & {"aiohttp", "numpy"} == set()


def test_domain_needs_no_pydantic() -> None:
    assert _loaded_by("import gpuserver.domain") & {"pydantic", "aiohttp"} == set()
