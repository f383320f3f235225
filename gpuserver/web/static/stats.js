/** An overlay for the curious: how the picture and the sound arrive, once per second, and how the last answer came about. */

import { byId, element } from "./dom.js";
import { t } from "./i18n.js";

const PERIOD_MS = 1000;

/** Turns what RTCPeerConnection.getStats says into figures; rates are those since the call before. */
export class StatsReader {
  #before = new Map();

  /** report: an RTCStatsReport. Figures that are not known yet are undefined. */
  read(report) {
    const all = [...report.values()];
    const inbound = all.filter(({ type }) => type === "inbound-rtp");
    const video = inbound.find(({ kind }) => kind === "video") ?? {};
    const transport = all.find(({ type }) => type === "transport");
    const pair = report.get(transport?.selectedCandidatePairId);
    const gone = (name) => this.#since(name, inbound.reduce((sum, each) => sum + (each[name] ?? 0), 0));
    const seconds = this.#since("timestamp", video.timestamp) / 1000;
    const [bytes, lost, received] = ["bytesReceived", "packetsLost", "packetsReceived"].map(gone);
    const held = this.#since("held", video.jitterBufferDelay) / this.#since("emitted", video.jitterBufferEmittedCount);
    return {
      fps: this.#since("framesDecoded", video.framesDecoded) / seconds,
      round_trip: pair?.currentRoundTripTime * 1000,
      jitter: video.jitter * 1000,
      lateness: held * 1000,
      bitrate: (bytes * 8) / 1000 / seconds,
      loss: (100 * lost) / Math.max(1, lost + received),
      dropped: video.framesDropped,
      picture: video.frameWidth && `${video.frameWidth} × ${video.frameHeight}`,
    };
  }

  #since(name, value) {
    const before = this.#before.get(name);
    this.#before.set(name, value);
    return value - before;
  }
}

const UNITS = {
  fps: ["stats.fps_value", 0],
  round_trip: ["stats.ms", 0],
  jitter: ["stats.ms", 1],
  lateness: ["stats.ms", 0],
  bitrate: ["stats.bitrate_value", 0],
  loss: ["stats.loss_value", 1],
};

export class StatsOverlay {
  #panel = byId("stats");
  #read;
  #timer = null;

  /** read: gives a promise of the current RTCStatsReport, or null while there is no connection. */
  constructor(read) {
    this.#read = read;
    byId("stats-toggle").addEventListener("click", () => this.toggle());
    document.addEventListener("keydown", (event) => {
      const isTyping = event.target.matches("input, textarea, select");
      if (event.key.toLowerCase() === "d" && !isTyping && !event.ctrlKey && !event.metaKey && !event.altKey) this.toggle();
    });
  }

  toggle() {
    if (byId("call").hidden) return;
    if (this.#timer) this.close();
    else this.#open();
  }

  close() {
    clearInterval(this.#timer);
    this.#timer = null;
    this.#panel.hidden = true;
    byId("stats-toggle").setAttribute("aria-expanded", "false");
  }

  #open() {
    const reader = new StatsReader();
    const show = async () => {
      const report = await this.#read();
      if (report) byId("stats-rows").replaceChildren(...rows(reader.read(report)));
    };
    this.#timer = setInterval(show, PERIOD_MS);
    this.#panel.hidden = false;
    byId("stats-toggle").setAttribute("aria-expanded", "true");
    show();
  }
}

function rows(figures) {
  return Object.entries(figures).map(([name, value]) => {
    const shown = element("dd", { data: { figure: name } }, written(name, value));
    return element("div", {}, element("dt", {}, t(`stats.${name}`)), shown);
  });
}

function written(name, value) {
  if (value === undefined || Number.isNaN(value)) return "–";
  if (!(name in UNITS)) return String(value);
  const [key, digits] = UNITS[name];
  const text = value.toFixed(digits);
  return t(key, { value: text, ms: text });
}
