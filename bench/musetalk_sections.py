"""What the MuseTalk benchmark measures, section by section; each gives the rows it has, one after the other."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial

import numpy as np
import torch

from bench.musetalk_report import REACH_FPS
from bench.musetalk_rig import Rig, seconds_of, speech
from bench.musetalk_sessions import Lateness, talk
from bench.musetalk_upstream import UpstreamPattern
from bench.table import Figure, at_least, at_most, plain
from gpuserver.domain import MouthJob
from gpuserver.errors import WeightsDamaged
from gpuserver.musetalk.neural.musetalk_engine import MuseTalkEngine

PRODUCT_BATCH = 8  # at most so many faces at a time in the media server
SPEED_BATCHES = (8, 16)  # for which a speed is to be reached

Section = Callable[[], Iterator[Figure | str]]


class Sections:
    """Each can be measured alone. Engines are made when they are first needed, the product's with batches up to 8, a fast one up to 16."""

    def __init__(self, rig: Rig):
        self._rig = rig
        self._size = rig.size
        self._most = max(self._size.batches)
        self._warm_up_seconds = 0.0

    def all(self) -> dict[str, Section]:
        return {
            "warm-up": self.warm_up,
            "memory": self.memory,
            "speed": self.speed,
            "upstream": self.upstream,
            "first face": self.first_face,
            "sessions": self.sessions,
            "stages": self.stages,
            "other batches": self.other_batches,
            "channels first": self.channels_first,
            "compiled": self.compiled,
        }

    @cached_property
    def _product(self) -> MuseTalkEngine:
        engine = self._rig.engine(min(PRODUCT_BATCH, self._most))
        self._warm_up_seconds = seconds_of(partial(warm_up, engine))
        return engine

    @cached_property
    def _fast(self) -> MuseTalkEngine:
        engine = self._rig.engine(self._most)
        warm_up(engine)
        return engine

    def warm_up(self) -> Iterator[Figure | str]:
        engine = self._product
        yield plain(
            "warm_up_s",
            "warm-up",
            self._warm_up_seconds,
            "s",
            f"ways to draw compared, batches up to {engine.max_batch} recorded, Whisper run",
        )
        yield from engine.remarks

    def memory(self) -> Iterator[Figure]:
        engine, before = self._product, self._rig.gigabytes()
        yield at_most(
            "memory_gb", "GPU memory", before, 6, "GB", f"all that is in use on the GPU: CUDA itself, batches up to {engine.max_batch}"
        )
        draw_all(engine, self._rig.jobs(engine, self._size.frames), engine.max_batch)
        kept = max(self._rig.gigabytes() - before, 0) * 1000
        yield at_most(
            "avatar_memory_mb", f"GPU memory of an avatar of {self._size.frames} frames", kept, 40, "MB", "all of them drawn once"
        )

    def first_face(self) -> Iterator[Figure]:
        engine, sound = self._product, speech(1.0)
        generation = self._rig.jobs(engine, 1)[0].generation

        def hear_and_draw() -> None:
            rows = engine.listener().hear(sound)
            engine.render([MouthJob(self._rig.frames[0], rows[0], 0.0, generation)])

        taken = [seconds_of(hear_and_draw) * 1000 for _ in range(self._size.repeats)]
        how = f"1 s of sound: spectrogram, Whisper, UNet, VAE, copy to the host; {len(taken)} times"
        yield at_most("first_face_p50_ms", "first face after its sound, 1 session, median", statistics.median(taken), 60, "ms", how)
        yield at_most("first_face_p99_ms", "the same, 99th percentile", float(np.percentile(taken, 99)), 60, "ms", how)

    def sessions(self) -> Iterator[Figure]:
        """More and more, until frames are late."""
        most = 0
        for sessions in self._size.sessions:
            lateness = talk(self._rig, self._product, sessions, self._size.session_seconds)
            late = lateness.percentile(99)
            what = f"lateness of a frame with {sessions} sessions speaking, 99th percentile"
            yield plain(f"lateness_{sessions}_ms", what, late * 1000, "ms", described(lateness))
            enough = late <= 0 and not lateness.failed
            most = sessions if enough else most
            yield at_least(
                "sessions", "sessions all speaking, 99% of frames not late", most, 16, "", "through the Renderer; hearing included"
            )
            if not enough:
                break

    def speed(self) -> Iterator[Figure | str]:
        engine = self._fast
        for batch in sorted(self._size.batches, key=lambda batch: batch not in SPEED_BATCHES):
            wait = statistics.median(self._waits(engine, batch))
            how = f"rows in, uint8 faces out on the host, two batches on their way; one alone takes {wait * 1000:.1f} ms"
            yield fps(batch, f"speed, batch {batch}", frames_per_second(self._rig, engine, batch), how, reach=batch in SPEED_BATCHES)
        yield from engine.remarks

    def _waits(self, engine: MuseTalkEngine, batch: int) -> Iterator[float]:
        jobs = self._rig.jobs(engine, batch)
        return (seconds_of(partial(engine.render, jobs)) for _ in range(min(self._size.repeats, 20)))

    def upstream(self) -> Iterator[Figure]:
        """In turns with ours, so that a change of the GPU's clock meets both."""
        engine, pattern, batch = self._fast, UpstreamPattern(self._rig), self._size.upstream_batch
        jobs = self._rig.jobs(engine, (4 if self._size.seconds else 1) * batch)
        rows = [job.features for job in jobs]
        pattern.draw(rows[:batch])
        ours: list[float] = []
        theirs: list[float] = []
        end = time.monotonic() + 4 * self._size.seconds
        while not ours or time.monotonic() < end:
            theirs.append(len(rows) / seconds_of(lambda: pattern.draw(rows)))
            ours.append(len(jobs) / seconds_of(lambda: draw_all(engine, jobs, min(PRODUCT_BATCH, engine.max_batch))))
        slow, fast = statistics.median(theirs), statistics.median(ours)
        how = (
            f"eager, batch {batch}, separate casts, .cpu() per batch, rounded in float32 on the host; {len(ours)} rounds in turns with ours"
        )
        yield plain("upstream_fps", "the same work by upstream's call pattern", slow, "frames/s", how)
        yield at_least(
            "ratio", "ours, relative to it", fast / slow, 3, "times", f"ours, batch {PRODUCT_BATCH}, in these rounds: {fast:.1f} frames/s"
        )

    def stages(self) -> Iterator[Figure]:
        unet, vae, whisper = self._rig.networks(seed=3)
        batch = min(PRODUCT_BATCH, self._most)
        latents = torch.zeros(batch, 8, 32, 32, device=self._rig.device, dtype=self._rig.dtype)
        audio = torch.zeros(batch, 50, unet.config.audio_channels, device=self._rig.device, dtype=self._rig.dtype)
        mel = torch.zeros(1, 80, 3000, device=self._rig.device, dtype=self._rig.dtype)
        how = "as loaded, each launch by itself, on the device; median"
        yield plain("unet_ms", f"UNet, batch {batch}", self._milliseconds(lambda: unet(latents, audio)), "ms", how)
        yield plain("decode_ms", f"the VAE's decoder, batch {batch}", self._milliseconds(lambda: vae.decode(latents[:, :4])), "ms", how)
        yield plain("whisper_ms", "Whisper, 30 s", self._milliseconds(lambda: whisper(mel)), "ms", how)

    def _milliseconds(self, work: Callable[[], object]) -> float:
        def run() -> None:
            with torch.inference_mode():
                work()
            self._rig.synchronize()

        run()
        return statistics.median(seconds_of(run) for _ in range(min(self._size.repeats, 20))) * 1000

    def other_batches(self) -> Iterator[Figure]:
        """Sizes that are no powers of two, and one that is too large to be quick for a single session."""
        for batch in self._size.others:
            yield self._variant(batch, "other", self._rig.variant(batch), "tuned for this batch alone")

    def channels_first(self) -> Iterator[Figure]:
        """The other layout of pixels: convolutions like channels last better, torch's norms the channels apart."""
        batch = min(PRODUCT_BATCH, self._most)
        engine = self._rig.variant(batch, layout=torch.contiguous_format)
        yield self._variant(batch, "channels first", engine, "torch's own norms, recorded")

    def compiled(self) -> Iterator[Figure]:
        """What torch.compile makes of it. One row after the other: a compilation may take longer than there is time."""
        for batch in SPEED_BATCHES:
            engine = self._rig.variant(batch, compiled=True)
            yield self._variant(batch, "compiled", engine, "torch.compile for this batch alone, recorded; needs a C compiler")

    def _variant(self, batch: int, name: str, engine: MuseTalkEngine, how: str) -> Figure:
        """Of an engine built in another way than the product's."""
        seconds = seconds_of(partial(warm_up, engine))
        speed = frames_per_second(self._rig, engine, batch)
        key, what = name.replace(" ", "_"), f"speed, batch {batch}" + ("" if name == "other" else f", {name}")
        return plain(f"fps_{key}_{batch}", what, speed, "frames/s", f"{how}; warm-up {seconds:.0f} s")


def frames_per_second(rig: Rig, engine: MuseTalkEngine, batch: int) -> float:
    """The median of some rounds, two batches on their way."""
    rehearsal = rig.jobs(engine, 2 * batch)
    once = seconds_of(lambda: draw_all(engine, rehearsal, batch))
    batches = max(2, round(2 * rig.size.seconds / rig.size.rounds / once))
    jobs = rig.jobs(engine, batch * batches)
    return statistics.median(len(jobs) / seconds_of(lambda: draw_all(engine, jobs, batch)) for _ in range(rig.size.rounds))


def draw_all(engine: MuseTalkEngine, jobs: Sequence[MouthJob], batch: int) -> None:
    """As the Renderer does: a batch is begun before the one before is waited for."""
    drawing = engine.begin(jobs[:batch])
    for at in range(batch, len(jobs), batch):
        following = engine.begin(jobs[at : at + batch])
        drawing.crops()
        drawing = following
    drawing.crops()


def warm_up(engine: MuseTalkEngine) -> None:
    """Numbers that are not finite take as long as others, and random weights may give them: speed is measured all the same."""
    try:
        engine.warm_up()
    except WeightsDamaged as error:
        print(error.detail, file=sys.stderr)


def fps(batch: int, what: str, value: float, how: str, *, reach: bool) -> Figure:
    key = f"fps_batch_{batch}"
    return at_least(key, what, value, REACH_FPS, "frames/s", how) if reach else plain(key, what, value, "frames/s", how)


def described(lateness: Lateness) -> str:
    first = f"; a sentence's first face {np.median(lateness.first) * 1000:.0f} ms after its sound, median" if lateness.first else ""
    failed = f"; {lateness.failed} not drawn" if lateness.failed else ""
    late = np.mean(np.array(lateness.frames) > 0) * 100
    return f"{len(lateness.frames)} frames, {late:.1f}% late{first}{failed}"
