(connection) => {
  // Records what the page's video element is given: pictures as decoded (I420), sound as played, keys and states, and what
  // the browser says about its own buffers. Times are performance.now() in milliseconds. Runs in the page; what it returns
  // stays with the test.
  const stream = document.getElementById("face").srcObject;
  const pictures = [], sounds = [], planes = [], samples = [], events = [], reports = [];
  const REPORT_MS = 250;
  const size = { width: 0, height: 0 };
  let isRunning = true;

  const note = (name) => events.push([performance.now(), name]);
  const onKey = ({ key }) => note(`key:${key}`);
  document.addEventListener("keydown", onKey, true);
  const stage = document.getElementById("stage");
  const states = new MutationObserver(() => note(`state:${stage.dataset.state}`));
  states.observe(stage, { attributeFilter: ["data-state"] });

  const read = async (track, take) => {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    while (isRunning) {
      const { value, done } = await reader.read();
      if (done) break;
      await take(value, performance.now());
      value.close();
    }
    await reader.cancel();
  };

  const takePicture = async (frame, now) => {
    if (frame.format !== "I420") throw new Error(`unexpected format ${frame.format}`);
    const plane = new Uint8Array(frame.allocationSize());
    await frame.copyTo(plane);
    Object.assign(size, { width: frame.visibleRect.width, height: frame.visibleRect.height });
    planes.push(plane);
    pictures.push([now, frame.timestamp / 1000]);
  };

  const takeSound = async (piece) => {
    if (piece.sampleRate !== 48000) throw new Error(`unexpected rate ${piece.sampleRate}`);
    const values = new Float32Array(piece.numberOfFrames);
    piece.copyTo(values, { planeIndex: 0, format: "f32-planar" });
    samples.push(values);
    sounds.push([piece.timestamp / 1000, piece.numberOfFrames]);
  };

  const report = async () => {
    const inbound = {};
    for (const each of (await connection.getStats()).values()) if (each.type === "inbound-rtp") inbound[each.kind] = each;
    const { audio, video } = inbound;
    reports.push({
      time: performance.now(),
      ahead: video.estimatedPlayoutTimestamp - audio.estimatedPlayoutTimestamp,
      dropped: video.framesDropped,
      stretched: audio.concealedSamples + audio.removedSamplesForAcceleration + audio.insertedSamplesForDeceleration,
    });
  };
  const reporting = setInterval(report, REPORT_MS);

  const reading = Promise.all([read(stream.getVideoTracks()[0], takePicture), read(stream.getAudioTracks()[0], takeSound)]);

  const stop = async () => {
    isRunning = false;
    clearInterval(reporting);
    await reading;
    await report();
    document.removeEventListener("keydown", onKey, true);
    states.disconnect();
    const head = `${JSON.stringify({ ...size, pictures, sounds, events, reports })}\n`;
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([head, ...planes, ...samples]));
    link.download = "recording";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  return { stop };
}
