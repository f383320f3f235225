/** The faces there are, as cards; the first tile adds one. */

import { deleteAvatar, filmUrl, isSample, listAvatars, previewUrl, Problem } from "./api.js";
import { byId, element, showProblem } from "./dom.js";
import { t } from "./i18n.js";
import { comesAlive } from "./living_preview.js";

export class Gallery {
  #list = byId("gallery");
  #message = byId("lobby-message");
  #avatars = [];
  #onCall;
  #onAdd;

  /** onCall gets the avatar to be called; onAdd is called to add one. */
  constructor({ onCall, onAdd }) {
    this.#onCall = onCall;
    this.#onAdd = onAdd;
  }

  get ids() {
    return this.#avatars.map(({ avatar_id }) => avatar_id);
  }

  /** The avatar with this id. */
  get(id) {
    return this.#avatars.find(({ avatar_id }) => avatar_id === id);
  }

  /** Fetches the faces again. */
  async refresh() {
    this.#list.setAttribute("aria-busy", "true");
    try {
      this.#avatars = await listAvatars();
      this.#message.hidden = true;
    } catch (problem) {
      this.showProblem(problem);
      this.#message.append(element("button", { type: "button", className: "quiet", onclick: () => this.refresh() }, t("gallery.retry")));
    }
    this.draw();
    this.#list.setAttribute("aria-busy", "false");
  }

  /** Draws what was fetched last, as after a change of the language. */
  draw() {
    this.#list.dataset.faces = ["none", "one"][this.#avatars.length] ?? "many";
    this.#list.replaceChildren(this.#tile(), ...this.#avatars.map((avatar) => this.#card(avatar)));
  }

  /** Says something above the cards. */
  say(text) {
    this.#message.replaceChildren(text);
    this.#message.dataset.kind = "notice";
    this.#message.hidden = false;
  }

  focus(id) {
    this.#list.querySelector(`[data-avatar-id="${CSS.escape(id)}"] .card-face`)?.focus();
  }

  /** Says what went wrong above the cards. */
  showProblem(problem) {
    if (!(problem instanceof Problem)) throw problem;
    this.#message.dataset.kind = "problem";
    showProblem(this.#message, problem);
  }

  #tile() {
    const text = [element("strong", {}, t("upload.tile")), element("span", {}, t("upload.tile_hint"))];
    const plus = element("span", { className: "plus", ariaHidden: "true" });
    const button = element("button", { type: "button", id: "add", className: "tile", onclick: () => this.#onAdd() }, plus, ...text);
    return element("li", {}, button);
  }

  #card(avatar) {
    const id = avatar.avatar_id;
    const picture = element("img", { src: previewUrl(avatar), alt: "", loading: "lazy", width: avatar.width, height: avatar.height });
    const call = element("span", { className: "call-pill", ariaHidden: "true" }, t("gallery.call"));
    const face = element("button", { type: "button", className: "card-face", onclick: () => this.#onCall(avatar) }, picture, call);
    face.setAttribute("aria-label", t("gallery.call_label", { name: id }));
    comesAlive(face, filmUrl(avatar));
    const about = isSample(avatar)
      ? element("span", { className: "badge" }, t("gallery.sample"))
      : element("small", {}, t("gallery.seconds", { seconds: Math.round(avatar.seconds) }));
    const remove = element("button", { type: "button", className: "remove", onclick: () => this.#remove(id) }, "×");
    remove.setAttribute("aria-label", t("gallery.delete_label", { name: id }));
    const text = element("div", { className: "card-text" }, element("strong", { title: id }, id), about);
    const card = element("li", { className: "card", data: { avatarId: id } }, face, text, remove);
    card.style.setProperty("--ratio", avatar.width / avatar.height);
    return card;
  }

  async #remove(id) {
    const dialog = byId("confirm");
    byId("confirm-title").textContent = t("gallery.delete_title", { name: id });
    dialog.returnValue = "no";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "yes") return;
    try {
      await deleteAvatar(id);
      await this.refresh();
    } catch (problem) {
      this.showProblem(problem);
    }
  }
}
