"""Whisper's encoder on its device, for the listeners of all sessions: what several ask at once is one batch."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gpuserver.domain import Floats
from gpuserver.errors import DeviceFull
from gpuserver.musetalk.networks.whisper import MEL_BANDS, MEL_FRAMES, WhisperEncoder
from gpuserver.musetalk.neural.gpu_errors import translated

MAX_BATCH = 8  # windows of 30 s


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """The steps begin to end of one spectrogram."""

    mel: Floats
    begin: int
    end: int
    answer: Future[Floats] = field(default_factory=Future)


class WhisperEar:
    """Implements musetalk_listener.Ear. The encoder's own device and number type are used; on a GPU, a stream that goes before drawing.

    It runs on one thread, whoever asks: cuBLAS and cuDNN keep handles, workspaces of 32 MB and chosen kernels for every thread.
    """

    def __init__(self, encoder: WhisperEncoder):
        self._encoder = encoder
        weight = encoder.conv1.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._stream: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device, priority=-1)  # type: ignore[no-untyped-call]
        self._waiting: deque[_Question] = deque()  # bounded: every caller waits for its answer
        self._encoding = threading.Lock()
        self._thread = ThreadPoolExecutor(1, "whisper")  # ends with this object
        self.out_of_memory = 0  # times that a batch had to be halved, or one window given up

    @property
    def width(self) -> int:
        return self._encoder.config.channels

    def steps(self, mel: Floats, begin: int, end: int) -> Floats:
        """As Ear.steps. Raises DeviceLost, or DeviceFull where there is not even memory for one."""
        question = _Question(mel, begin, end)
        self._waiting.append(question)
        with self._encoding:  # whoever comes in answers for all who wait, and finds the own question answered or among them
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
            if batch:
                self._answer(batch)
        return question.answer.result()

    def warm_up(self) -> None:
        """Run the largest batch and the smallest, so that memory and kernels are there. Raises DeviceLost, torch.OutOfMemoryError."""
        silence = np.zeros((MEL_BANDS, MEL_FRAMES), np.float32)
        for size in (MAX_BATCH, 1):
            self._thread.submit(self._encode, [_Question(silence, 0, 1) for _ in range(size)]).result()

    def _answer(self, batch: list[_Question]) -> None:
        """Settles every future. Where there is too little memory for all at once, one half after the other."""
        if not self._answered(batch):
            half = len(batch) // 2
            self._answer(batch[:half])
            self._answer(batch[half:])

    def _answered(self, batch: list[_Question]) -> bool:
        """False: there is too little memory for so many."""
        try:
            answers = self._thread.submit(self._encode, batch).result()
        except torch.OutOfMemoryError as error:
            self.out_of_memory += 1
            if len(batch) > 1:
                return False
            batch[0].answer.set_exception(DeviceFull(str(error)))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            for question in batch:
                question.answer.set_exception(error)
        else:
            for question, answer in zip(batch, answers, strict=True):
                question.answer.set_result(answer)
        return True

    def _encode(self, batch: list[_Question]) -> list[Floats]:
        mels = torch.from_numpy(np.stack([question.mel for question in batch]))
        with translated(), torch.inference_mode(), self._own_stream():
            states: Tensor = self._encoder(mels.to(self._device, self._dtype))
            return [states[i, each.begin : each.end].cpu().float().numpy() for i, each in enumerate(batch)]

    def _own_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
