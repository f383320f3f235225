/** One WebRTC connection that receives the face and its voice. Candidates trickle both ways over the WebSocket. */

const DISCONNECTED_GRACE_MS = 4000; // ICE often recovers by itself within this time
const CONNECT_MS = 30000; // from the offer on: browsers give ICE up sooner, but would wait for an answer for ever

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
    this.#loseAfter(CONNECT_MS);
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

  /** What cannot be applied, such as a candidate for the connection before, is no reason to leave out what follows. */
  #inOrder(step) {
    this.#work = this.#work.then(() => (this.isAlive ? step() : null)).catch((error) => console.warn("signalling:", error));
    return this.#work;
  }

  #watch() {
    const state = this.#connection.connectionState;
    if (state === "connecting") this.#loseAfter(CONNECT_MS);
    if (state === "disconnected") this.#loseAfter(DISCONNECTED_GRACE_MS);
    if (state === "failed") this.#lose();
    if (state === "connected") {
      clearTimeout(this.#grace);
      this.#onConnected();
    }
  }

  #loseAfter(milliseconds) {
    clearTimeout(this.#grace);
    this.#grace = setTimeout(() => this.#lose(), milliseconds);
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
