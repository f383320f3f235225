"""Runs as the child process that prepares for MuseTalk, with fake networks. The name of MUSETALK_BASE says what happens."""

import sys
import time
from pathlib import Path

from small_avatar import fake_encode

from gpuserver.errors import WeightsDamaged
from gpuserver.musetalk.preparing.latent_preparation import Encode, LatentRequest, Parse, main


def load(request: LatentRequest) -> tuple[Encode, Parse | None]:
    match request.base.name:
        case "damaged":
            raise WeightsDamaged("The VAE is cut off.", advice="Get it again.")
        case "defect":
            raise RuntimeError("oh")
        case "without-torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")
        case "hangs":
            time.sleep(600)
        case "prints":
            print("torch says hello")
            Path(request.base).mkdir(exist_ok=True)
    return fake_encode, None


if __name__ == "__main__":
    sys.exit(main(load))
