/** The face on its stage: playback, what it is doing, and what covers it while there is no picture. */

import { isSample, previewUrl } from "./api.js";
import { byId } from "./dom.js";
import { t } from "./i18n.js";

const WIDE = 1.4; // a wider picture is never cut to fill the stage: its face may be at a side

export class Stage {
  #stage = byId("stage");
  #face = byId("face");
  #tap = byId("tap-to-hear");
  #text = { key: "call.connecting", values: {} };

  constructor() {
    this.#tap.addEventListener("click", () => this.#unmute());
    this.#face.addEventListener("playing", () => { this.#stage.dataset.picture = "live"; });
  }

  /** Prepares for a call with this avatar: its still picture shows until the live one arrives. */
  open(avatar) {
    byId("poster").src = previewUrl(avatar);
    byId("call-name").textContent = avatar.avatar_id;
    byId("call-sample").hidden = !isSample(avatar);
    this.#stage.dataset.shape = avatar.width / avatar.height > WIDE ? "wide" : "upright";
    this.#face.srcObject = new MediaStream();
    this.#face.muted = false;
    this.#tap.hidden = true;
    this.#stage.dataset.picture = "still";
  }

  /** Replaces the track of the same kind, so that a renewed connection continues in the same element. */
  addTrack(track) {
    const stream = this.#face.srcObject;
    for (const old of stream.getTracks().filter(({ kind }) => kind === track.kind)) stream.removeTrack(old);
    stream.addTrack(track);
    this.#play();
  }

  close() {
    this.#face.srcObject = null;
  }

  /** state: connecting, waiting, reconnecting, renewing, listening, thinking or speaking. */
  show(state, values = {}) {
    this.#stage.dataset.state = state;
    this.#text = { key: state === "waiting" ? "call.full" : `call.${state}`, values };
    byId("interrupt").disabled = !["thinking", "speaking"].includes(state);
    this.draw();
  }

  /** Writes the state's name again, as after a change of the language. */
  draw() {
    const text = t(this.#text.key, this.#text.values);
    byId("status-text").textContent = text;
    byId("curtain-text").textContent = text;
  }

  /** Browsers may refuse sound before the user has touched the page: the picture then starts mute, with a button for the sound. */
  async #play() {
    try {
      await this.#face.play();
    } catch (error) {
      if (error.name !== "NotAllowedError") return; // a newer play() has taken over
      this.#face.muted = true;
      this.#tap.hidden = false;
      await this.#face.play();
    }
  }

  #unmute() {
    this.#face.muted = false;
    this.#tap.hidden = true;
    this.#face.play();
  }
}
