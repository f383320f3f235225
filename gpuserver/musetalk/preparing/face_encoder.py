"""The networks of a preparation for MuseTalk: faces become latents (VAE) and maps of their parts (BiSeNet)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpuserver.domain import Bytes2D
from gpuserver.errors import GpuserverError, WeightsDamaged
from gpuserver.musetalk.networks.bisenet import BiSeNet
from gpuserver.musetalk.networks.vae import SCALING_FACTOR, Vae
from gpuserver.musetalk.neural.blending import PARSING_SIDE
from gpuserver.musetalk.neural.face_boxes import FACE_SIDE
from gpuserver.musetalk.neural.resampling import resized

HIDDEN_FROM = FACE_SIDE // 2  # the rows from here on are hidden in a masked face; the network draws them anew

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB, of ImageNet


class FaceEncoder:
    """Pictures of a face to MuseTalk's latents. batch: faces at a time; halved for good when the GPU's memory does not hold them."""

    def __init__(self, vae: Vae, batch: int = 8):
        self._vae = vae
        self._batch = batch
        self._like = next(vae.parameters())

    def __call__(self, faces: NDArray[np.uint8]) -> NDArray[np.float16]:
        """RGB [n, 256, 256, 3] -> [n, 8, 32, 32]: channels 0-3 with the lower half hidden, 4-7 whole, scaled by 0.18215.

        The posterior's mode is taken, as in MuseTalk's training; upstream's inference samples it, so that no two runs are equal.
        Raises WeightsDamaged where the VAE gives no numbers, GpuserverError where the GPU has no memory left.
        """
        latents: list[NDArray[np.float16]] = []
        done = 0
        while done < len(faces):
            try:
                latents.append(self._encode(faces[done : done + self._batch]))
            except torch.cuda.OutOfMemoryError:
                if self._batch == 1:
                    raise GpuserverError("The GPU's memory is full.", advice="End sessions or other programs on the GPU.") from None
                torch.cuda.empty_cache()
                self._batch //= 2
            else:
                done += len(latents[-1])
        return np.concatenate(latents)

    @torch.inference_mode()
    def _encode(self, faces: NDArray[np.uint8]) -> NDArray[np.float16]:
        # Contiguous: with channels last, group norm on a CPU loses digits (torch 2.13, 2e-3 in the latents).
        levels = torch.from_numpy(np.ascontiguousarray(faces)).to(self._like.device).permute(0, 3, 1, 2).contiguous().float()
        whole = levels / 255 * 2 - 1
        masked = whole.clone()
        masked[:, :, HIDDEN_FROM:] = -1  # black
        mode, _ = self._vae.encode(torch.cat([masked, whole]).to(self._like.dtype))
        both: Tensor = torch.cat((mode.float() * SCALING_FACTOR).chunk(2), dim=1)
        if not torch.isfinite(both).all():
            raise WeightsDamaged("The VAE does not make numbers of a face.")
        return np.asarray(both.half().cpu().numpy(), np.float16)


class FaceParser:
    """A face in its crop box to the map of its parts."""

    def __init__(self, bisenet: BiSeNet):
        self._bisenet = bisenet
        self._like = next(bisenet.parameters())

    @torch.inference_mode()
    def __call__(self, face: NDArray[np.uint8]) -> Bytes2D:
        """RGB [side, side, 3] -> classes [512, 512]."""
        levels = torch.from_numpy(resized(face, PARSING_SIDE, PARSING_SIDE, "bilinear")).to(self._like.device).permute(2, 0, 1)[None]
        mean, deviation = (levels.new_tensor(values, dtype=torch.float32)[:, None, None] for values in (_MEAN, _DEVIATION))
        logits = self._bisenet((((levels.float() / 255) - mean) / deviation).to(self._like.dtype))
        return np.asarray(logits[0].argmax(dim=0).to(torch.uint8).cpu().numpy(), np.uint8)
