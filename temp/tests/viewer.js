async ({ avatar, limit }) => {
  // A player on a page of its own: connects, shows, and keeps account of what it was given. Times are milliseconds.
  const begun = performance.now();
  const post = async (path, body) => {
    const answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const text = await answer.text();
    const said = answer.ok ? JSON.parse(text) : {};
    if (!answer.ok || said.code === -1) throw new Error(`${path}: ${answer.status} ${text}`);
    return said;
  };
  const peer = new RTCPeerConnection();
  const video = document.createElement("video");
  Object.assign(video, { autoplay: true, playsInline: true });
  document.body.append(video);
  const stream = new MediaStream();
  video.srcObject = stream;
  const arrivals = [];
  const watch = async (track) => {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      arrivals.push(performance.now());
      value.close();
    }
  };
  peer.addEventListener("track", ({ track }) => {
    stream.addTrack(track);
    if (track.kind === "video") watch(track.clone());
  });
  peer.addTransceiver("audio", { direction: "recvonly" });
  peer.addTransceiver("video", { direction: "recvonly" });
  await peer.setLocalDescription(await peer.createOffer());
  if (peer.iceGatheringState !== "complete")
    await new Promise((resolve) => peer.addEventListener("icegatheringstatechange", () => peer.iceGatheringState === "complete" && resolve()));
  const offered = performance.now();
  const answer = await post("/offer", { ...peer.localDescription.toJSON(), avatar });
  await peer.setRemoteDescription(answer);
  const first = await new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("no picture")), limit);
    const look = () => (arrivals.length ? (clearTimeout(timer), resolve(arrivals[0])) : setTimeout(look, 2));
    look();
  });
  const inbound = async (kind) => [...(await peer.getStats()).values()].find((each) => each.type === "inbound-rtp" && each.kind === kind);
  globalThis.viewer = {
    fromBegin: first - begun,
    fromOffer: first - offered,
    arrivals,
    stats: async () => ({ audio: { ...(await inbound("audio")) }, video: { ...(await inbound("video")) }, now: performance.now() }),
    say: (text) => post("/human", { sessionid: answer.sessionid, type: "echo", text, interrupt: true }),
    interrupt: () => post("/interrupt_talk", { sessionid: answer.sessionid }),
    isSpeaking: async () => (await post("/is_speaking", { sessionid: answer.sessionid })).data,
    close: () => (peer.close(), video.remove()),
  };
  return [viewer.fromBegin, viewer.fromOffer];
}
