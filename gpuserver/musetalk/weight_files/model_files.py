"""The official weight files of MuseTalk: where each one lies below MUSETALK_BASE/models, how to recognise it and where it comes from.

Not needed by this runtime, and never downloaded: dwpose, s3fd and resnet18 (another landmarker is used, and 79999_iter.pth holds
all of BiSeNet), syncnet (training only), and the .json files (the networks' shapes are part of the code). Standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

CONVERTED_SUFFIX = ".fp16.safetensors"  # what `gpuserver models convert` writes beside an original


class Version(StrEnum):
    """A released version of MuseTalk. Only the UNet differs."""

    V15 = "V1.5"
    V10 = "V1.0"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a repository on the Hugging Face hub, at a full commit."""

    repository: str
    revision: str
    name: str

    @property
    def page(self) -> str:
        return f"https://huggingface.co/{self.repository}/blob/{self.revision}/{self.name}"


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One official file. path: below MUSETALK_BASE/models. sha256: None where it is not known for certain.

    source: None for a file that is taken where it is found but not downloaded; `page` then says where it was published.
    """

    path: str
    size: int | None  # bytes
    sha256: str | None
    source: Source | None = None
    published: str = ""

    @property
    def page(self) -> str:
        """An address for a person who wants to get the file."""
        return self.published if self.source is None else self.source.page

    @property
    def converted(self) -> str:
        """Where `gpuserver models convert` puts this file's tensors, below MUSETALK_BASE/models."""
        path = PurePosixPath(self.path)
        return str(path.with_name(path.stem + CONVERTED_SUFFIX))


@dataclass(frozen=True, slots=True)
class Need:
    """A network that needs one file. Any of the choices will do; the first one is what is downloaded.

    versions: which of MuseTalk's versions need it. required False: without it something simpler stands in.
    """

    name: str
    purpose: str
    versions: frozenset[Version]
    choices: tuple[ModelFile, ...]
    required: bool = True

    def found(self, base: Path) -> Path | None:
        """The file to load: a converted one whose original is not newer, else the first choice that is there."""
        folder = models_folder(base)
        converted = (folder / file.converted for file in self.choices if _is_fresh(folder / file.converted, folder / file.path))
        return next((path for path in (*converted, *(folder / file.path for file in self.choices)) if path.is_file()), None)


def _is_fresh(converted: Path, original: Path) -> bool:
    return converted.is_file() and not (original.is_file() and original.stat().st_mtime_ns > converted.stat().st_mtime_ns)


_MUSETALK = ("TMElyralab/MuseTalk", "3ef28bc5cff08c90ad8178a25f1b570cd800170f")
_VAE = ("stabilityai/sd-vae-ft-mse", "31f26fdeee1355a5c34592e401dd41e45d25a493")
_WHISPER = ("openai/whisper-tiny", "169d4a4341b33bc18d8881c4b69c2e104e1cc0af")
_FACE_PARSING = ("ManyOtherFunctions/face-parse-bisent", "0073b233a5a3c4b1377d4dbf49245017938a72b5")
_TINY_SHA256 = "65147644a518d12f04e32d6f3b26facc3f8dd46e5390956a9424a650c0ce22b9"  # part of its address as well
_EITHER = frozenset(Version)


def _vae_files(folder: str) -> tuple[ModelFile, ...]:
    """Both formats, in the folder's present name or its former one."""
    name = "diffusion_pytorch_model"
    return (
        ModelFile(
            f"{folder}/{name}.safetensors",
            334_643_276,
            "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815",
            Source(*_VAE, f"{name}.safetensors"),
        ),
        ModelFile(
            f"{folder}/{name}.bin",
            334_707_217,
            "1b4889b6b1d4ce7ae320a02dedaeff1780ad77d415ea0d744b476155c6377ddc",
            Source(*_VAE, f"{name}.bin"),
        ),
    )


NEEDS: tuple[Need, ...] = (
    Need(
        "UNet V1.5",
        "draws the mouth (V1.5)",
        frozenset({Version.V15}),
        (
            ModelFile(
                "musetalkV15/unet.pth",
                3_400_074_924,
                "7ebf6c98c181e20838e4c0054e96e944ac60d5d692cc01db42839fe11b787007",
                Source(*_MUSETALK, "musetalkV15/unet.pth"),
            ),
        ),
    ),
    Need(
        "UNet V1.0",
        "draws the mouth (V1.0)",
        frozenset({Version.V10}),
        (ModelFile("musetalk/pytorch_model.bin", 3_400_076_549, None, Source(*_MUSETALK, "musetalk/pytorch_model.bin")),),
    ),
    Need("VAE", "turns faces into latents and back", _EITHER, (*_vae_files("sd-vae"), *_vae_files("sd-vae-ft-mse"))),
    Need(
        "Whisper tiny",
        "hears the speech",
        _EITHER,
        (
            ModelFile(
                "whisper/model.safetensors",
                151_061_672,
                "7ebd0e69e78190ffe1438491fa05cc1f5c1aa3a4c4db3bc1723adbb551ea2395",
                Source(*_WHISPER, "model.safetensors"),
            ),
            ModelFile(
                "whisper/pytorch_model.bin",
                151_095_027,
                "9607f98a2b22d9e229ae43c52ecea79dcede9e0c5cfae67e8da6eda86d8aac1d",
                Source(*_WHISPER, "pytorch_model.bin"),
            ),
            ModelFile(
                "whisper/tiny.pt",
                None,
                _TINY_SHA256,
                published=f"https://openaipublic.azureedge.net/main/whisper/models/{_TINY_SHA256}/tiny.pt",
            ),
        ),
    ),
    Need(
        "BiSeNet",
        "finds the skin around the mouth while an avatar is prepared; without it landmarks do",
        _EITHER,
        (
            ModelFile(
                "face-parse-bisent/79999_iter.pth",
                53_289_463,
                "468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
                Source(*_FACE_PARSING, "79999_iter.pth"),
            ),
        ),
        required=False,
    ),
)

LICENCES = (
    "MuseTalk's UNet: its README says free for any purpose, also commercial; its card on the hub says creativeml-openrail-m (limits use).",
    "VAE (sd-vae-ft-mse): MIT.",
    "Whisper tiny: MIT (the card on the hub says Apache-2.0).",
    "BiSeNet (face parsing): code MIT; the file states no licence and was trained on CelebAMask-HQ, a data set for non-commercial use.",
)


def models_folder(base: Path) -> Path:
    """Where the files lie below MUSETALK_BASE."""
    return base / "models"


def needs_of(version: Version, *, optional: bool = False) -> list[Need]:
    """What this version cannot work without; with `optional` also what makes it better."""
    return [need for need in NEEDS if version in need.versions and (need.required or optional)]


def missing_files(base: Path, version: Version) -> list[Need]:
    """What is not there at all. A file that is there may still be damaged: loading it, or `gpuserver models check`, tells."""
    return [need for need in needs_of(version) if need.found(base) is None]


def installed_version(base: Path) -> Version | None:
    """The newest version that has every file it needs."""
    return next((version for version in Version if not missing_files(base, version)), None)


def describe_missing(base: Path | None, version: Version = Version.V15) -> str | None:
    """One plain sentence for the log and /health that says what to do; None if nothing is missing."""
    if base is None:
        return "ENABLE_MUSETALK needs MUSETALK_BASE: the folder in which `gpuserver models download` puts the weights."
    missing = missing_files(base, version)
    if not missing:
        return None
    files = ", ".join(f"{need.choices[0].path} ({need.name})" for need in missing)
    return f"Below {models_folder(base)} there is no {files}; `gpuserver models download` gets what is missing."
