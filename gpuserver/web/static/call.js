/** A call: one session on the server, one WebSocket, one Peer; all three are renewed by itself when they are lost. */

import { createSession, deleteSession, Problem, sessionExists } from "./api.js";
import { Peer } from "./peer.js";

const FIRST_RETRY_MS = 500;
const LONGEST_RETRY_MS = 8000;
const DEFAULT_WAIT_S = 5; // where a full server does not say how long
const HEARTBEAT_MS = 15000;
const ALONE_MS = 10000; // nothing heard for so long after a ping: the line is dead
const ENDED_ON_PURPOSE = new Set(["idle", "deleted", "avatar deleted"]); // reasons of session_lost

/**
 * Events, each with `detail`:
 * "state" {state, seconds?}: connecting, waiting (full; seconds left), connected, reconnecting, renewing, ended;
 * "message": every message of the server; "track": each MediaStreamTrack; "session": the session's description;
 * "problem": a Problem that ended the call; "unreachable": media do not get through.
 */
export class Call extends EventTarget {
  #request;
  #history;
  #session = null;
  #socket = null;
  #peer = null;
  #toldUnreachable = false; // once, until media get through again
  #end = new AbortController();

  /** request: the body of POST /v1/sessions. history: gives the conversation so far, for a session that replaces a lost one. */
  constructor(request, history) {
    super();
    this.#request = { ...request };
    this.#history = history;
  }

  /** Keeps the call up until hangUp, or until a Problem that trying again cannot cure. */
  async run() {
    let failures = 0;
    this.#tell("state", { state: "connecting" });
    while (!this.#ended) {
      try {
        this.#session ??= await this.#newSession();
        const wasOpen = await this.#converse();
        failures = wasOpen ? 0 : failures + 1;
        if (this.#ended) break;
        this.#tell("state", { state: "reconnecting" });
        await this.#pause(wasOpen ? 0 : retryDelay(failures));
        if (this.#session && !(await sessionExists(this.#session.session_id))) this.#forgetSession();
      } catch (error) {
        if (this.#ended) break;
        failures += 1;
        if (!(await this.#recover(error, failures))) break;
      }
    }
    this.#close();
  }

  ask(text) {
    return this.#send({ type: "ask", text });
  }

  say(text) {
    return this.#send({ type: "say", text });
  }

  /** Thinks and speaks as `settings` say, from the next answer on and in every session that replaces a lost one. */
  configure(settings) {
    Object.assign(this.#request, settings);
    return this.#send({ type: "configure", ...settings });
  }

  /** A promise of the connection's RTCStatsReport; null while there is none. */
  stats() {
    return this.#peer?.stats() ?? null;
  }

  interrupt() {
    return this.#send({ type: "interrupt" });
  }

  hangUp() {
    this.#end.abort();
  }

  get #ended() {
    return this.#end.signal.aborted;
  }

  async #newSession() {
    const session = await createSession({ ...this.#request, history: this.#history() }, this.#end.signal);
    this.#tell("session", session);
    return session;
  }

  #forgetSession() {
    this.#session = null;
    this.#closePeer();
    this.#tell("state", { state: "renewing" });
  }

  /** Waits where waiting helps, and says whether to go on. */
  async #recover(error, failures) {
    if (error instanceof Problem && error.status === 429) {
      await this.#countDown(error.retryAfter ?? DEFAULT_WAIT_S);
      return true;
    }
    if (error instanceof Problem && (error.status === 0 || error.status >= 500)) {
      this.#tell("state", { state: "reconnecting" });
      await this.#pause(retryDelay(failures));
      return true;
    }
    this.#tell("problem", error);
    return false;
  }

  async #countDown(seconds) {
    for (let left = Math.ceil(seconds); left > 0 && !this.#ended; left -= 1) {
      this.#tell("state", { state: "waiting", seconds: left });
      await this.#pause(1000);
    }
  }

  /** Talks over one WebSocket until it closes; whether it was ever open. */
  #converse() {
    const { engine_url: address, engine_token: token } = this.#session;
    const socket = new WebSocket(`${address}?token=${encodeURIComponent(token)}`);
    this.#socket = socket;
    let wasOpen = false;
    let heartbeat = null;
    return new Promise((resolve) => {
      // Not only when the socket has closed: a browser gives a dead line a minute to answer its farewell.
      const leave = () => {
        heartbeat?.stop();
        socket.onopen = socket.onmessage = socket.onclose = null;
        this.#end.signal.removeEventListener("abort", leave);
        socket.close(1000);
        resolve(wasOpen);
      };
      this.#end.signal.addEventListener("abort", leave);
      socket.onclose = leave;
      socket.onopen = () => {
        wasOpen = true;
        heartbeat = new Heartbeat(socket, leave);
        if (!this.#peer?.isAlive) this.#openPeer();
        else if (this.#peer.isConnected) this.#tell("state", { state: "connected" });
      };
      socket.onmessage = ({ data }) => {
        heartbeat.heard();
        this.#receive(JSON.parse(data));
      };
    });
  }

  #receive(message) {
    if (message.type === "webrtc_answer") this.#peer?.answer(message.sdp);
    else if (message.type === "webrtc_ice_candidate") this.#peer?.addCandidate(message.candidate);
    else if (message.type === "session_lost") this.#lose(message.reason);
    else if (message.type !== "pong") this.#tell("message", message);
  }

  /** A restarted server is called again; a call that was ended there stays ended. */
  #lose(reason) {
    if (!ENDED_ON_PURPOSE.has(reason)) this.#forgetSession();
    else {
      this.#session = null;
      this.#tell("problem", new Problem({ type: `call-ended:${reason}` }));
      this.hangUp();
    }
  }

  #openPeer() {
    this.#peer?.close();
    this.#peer = new Peer(this.#session.webrtc, {
      send: (message) => this.#send(message),
      onTrack: (track) => this.#tell("track", track),
      onConnected: () => {
        this.#toldUnreachable = false;
        this.#tell("state", { state: "connected" });
      },
      onLost: () => this.#replacePeer(),
    });
    this.#peer.offer();
  }

  #replacePeer() {
    if (!this.#toldUnreachable) this.#tell("unreachable", null);
    this.#toldUnreachable = true;
    this.#tell("state", { state: "connected" }); // answers can be read while picture and sound are tried again
    if (this.#socket?.readyState === WebSocket.OPEN) this.#openPeer();
    else this.#peer = null; // opened again together with the WebSocket
  }

  /** Whether the message could be handed over. */
  #send(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #closePeer() {
    this.#peer?.close();
    this.#peer = null;
  }

  #close() {
    this.#closePeer();
    if (this.#session) deleteSession(this.#session.session_id);
    this.#session = null;
    this.#tell("state", { state: "ended" });
  }

  /** Resolves after `milliseconds`, or at once when the call ends. */
  #pause(milliseconds) {
    const { signal } = this.#end;
    return new Promise((resolve) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener("abort", end);
        resolve();
      };
      const timer = setTimeout(end, milliseconds);
      signal.addEventListener("abort", end);
      if (signal.aborted) end();
    });
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

/** Finds out when a WebSocket's other end has gone without a word. */
class Heartbeat {
  #socket;
  #onDead;
  #timer = null;

  constructor(socket, onDead) {
    this.#socket = socket;
    this.#onDead = onDead;
    this.heard();
  }

  /** Something has arrived: the line is alive. */
  heard() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#ping(), HEARTBEAT_MS);
  }

  stop() {
    clearTimeout(this.#timer);
  }

  #ping() {
    this.#socket.send(JSON.stringify({ type: "ping" }));
    this.#timer = setTimeout(this.#onDead, ALONE_MS);
  }
}

function retryDelay(failures) {
  return Math.min(FIRST_RETRY_MS * 2 ** (failures - 1), LONGEST_RETRY_MS);
}
