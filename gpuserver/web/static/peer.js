/** One WebRTC connection that receives the face and its voice. Candidates trickle both ways over the WebSocket. */

const DISCONNECTED_GRACE_MS = 4000; // ICE often recovers by itself within this time

export class Peer {
  #connection;
  #send;
  #onConnected;
  #onLost;
  #grace = null;
  #work = Promise.resolve(); // remote descriptions and candidates are applied in the order of their arrival

  /**
   * send: hands a message to the server. onTrack: gets each MediaStreamTrack. onConnected: picture and sound get through.
   * onLost: called once when they no longer do, or never did.
   */
  constructor(config, { send, onTrack, onConnected, onLost }) {
    this.#send = send;
    this.#onConnected = onConnected;
    this.#onLost = onLost;
    this.#connection = new RTCPeerConnection({
      iceServers: config.iceServers.map(withoutNulls),
      iceTransportPolicy: config.iceTransportPolicy,
    });
    this.#connection.addTransceiver("audio", { direction: "recvonly" });
    this.#connection.addTransceiver("video", { direction: "recvonly" });
    this.#connection.ontrack = ({ track }) => onTrack(track);
    this.#connection.onicecandidate = ({ candidate }) =>
      send({ type: "webrtc_ice_candidate", candidate: candidate?.candidate ? candidate.toJSON() : null });
    this.#connection.onconnectionstatechange = () => this.#watch();
  }

  get isConnected() {
    return this.#connection.connectionState === "connected";
  }

  get isAlive() {
    return !["failed", "closed"].includes(this.#connection.connectionState);
  }

  /** An RTCStatsReport. */
  stats() {
    return this.#connection.getStats();
  }

  async offer() {
    await this.#connection.setLocalDescription();
    this.#send({ type: "webrtc_offer", sdp: this.#connection.localDescription.sdp });
  }

  answer(sdp) {
    return this.#inOrder(() => this.#connection.setRemoteDescription({ type: "answer", sdp }));
  }

  addCandidate(candidate) {
    return this.#inOrder(() => this.#connection.addIceCandidate(candidate));
  }

  close() {
    clearTimeout(this.#grace);
    this.#onLost = () => {};
    this.#connection.close();
  }

  #inOrder(step) {
    this.#work = this.#work.then(() => (this.isAlive ? step() : null));
    return this.#work;
  }

  #watch() {
    clearTimeout(this.#grace);
    const state = this.#connection.connectionState;
    if (state === "connected") this.#onConnected();
    if (state === "failed") this.#lose();
    if (state === "disconnected") this.#grace = setTimeout(() => this.#lose(), DISCONNECTED_GRACE_MS);
  }

  #lose() {
    const onLost = this.#onLost;
    this.close();
    onLost();
  }
}

function withoutNulls(server) {
  return Object.fromEntries(Object.entries(server).filter(([, value]) => value !== null));
}
