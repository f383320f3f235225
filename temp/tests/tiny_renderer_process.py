"""A renderer process with the smallest MuseTalk on the CPU. As a program: python tiny_renderer_process.py DESCRIPTOR-OF-A-SOCKET"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from gpuserver.media_router.renderers import listen
from gpuserver.musetalk.render_service.faces import unpasted
from gpuserver.musetalk.render_service.service import Painter, RenderService

if TYPE_CHECKING:
    from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine, Paste

ROOT = Path(__file__).resolve().parents[2]


class TinyRenderer:
    """start() and kill() as often as wanted; the socket stays."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="r")  # a socket's path has at most 107 bytes
        self.path = Path(self._folder.name) / "renderer-1.sock"
        self._listening = listen(self.path)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        descriptor = self._listening.fileno()
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen([sys.executable, __file__, str(descriptor)], pass_fds=[descriptor], env=environment)

    def kill(self) -> None:
        """kill -9"""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        self._listening.close()
        self._folder.cleanup()


def tiny_engine(paste: Paste) -> MuseTalkEngine:
    """Always the same one. A batch of it is one face: what several at once give may differ in the last bit."""
    import torch

    from gpuserver.musetalk.networks.unet import UNet, UNetConfig
    from gpuserver.musetalk.networks.vae import Vae, VaeConfig
    from gpuserver.musetalk.networks.whisper import WhisperConfig, WhisperEncoder
    from gpuserver.musetalk.neural.musetalk_engine import make_musetalk_engine
    from gpuserver.musetalk.weight_files.made_up_weights import random_weights

    torch.set_num_threads(1)
    unet, vae = UNet(UNetConfig((32, 32, 32, 32), 64)), Vae(VaeConfig((32, 32, 32, 32)))
    whisper = WhisperEncoder(WhisperConfig.tiny())
    return make_musetalk_engine(random_weights(unet), random_weights(vae), random_weights(whisper), max_batch=1, paste=paste)


def main(descriptor: int) -> None:
    def end(_reason: str) -> NoReturn:
        os._exit(1)

    RenderService(lambda: [Painter(tiny_engine(unpasted), 50.0)], end).serve(socket.socket(fileno=descriptor))


if __name__ == "__main__":
    main(int(sys.argv[1]))
