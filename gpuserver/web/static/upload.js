/** The sheet that makes a face from a video: choose or drop a file, name it, watch it being prepared. */

import { Problem, uploadAvatar } from "./api.js";
import { byId, showProblem } from "./dom.js";
import { t } from "./i18n.js";

const LONGEST_ID = 64;

/** A name that the server takes, made from a file's name, unlike any of `taken`. */
export function suggestId(fileName, taken, now = new Date()) {
  const stem = fileName.replace(/\.[^.]*$/, "").normalize("NFKD");
  const plain = stem.replace(/[^A-Za-z0-9_-]+/g, "_").replace(/^_+|_+$/g, "").slice(0, LONGEST_ID - 4);
  const base = plain || `face_${now.toISOString().slice(0, 10)}`; // as for a file name in Chinese
  let id = base;
  for (let number = 2; taken.includes(id); number += 1) id = `${base}_${number}`;
  return id;
}

export class UploadSheet {
  #dialog = byId("upload");
  #file = null;
  #abort = null;
  #takenIds;
  #onAdded;

  /** takenIds: gives the ids in use. onAdded gets the id of the new avatar. */
  constructor({ takenIds, onAdded }) {
    this.#takenIds = takenIds;
    this.#onAdded = onAdded;
    byId("upload-file").addEventListener("change", ({ target }) => this.#choose(target.files[0]));
    byId("upload-cancel").addEventListener("click", () => this.#dialog.close());
    byId("upload-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.#dialog.addEventListener("close", () => this.#abort?.abort());
    this.#acceptDrops();
  }

  /** Opens the sheet, with a file where one was dropped. */
  open(file = null) {
    byId("upload-form").reset();
    byId("upload-error").hidden = true;
    byId("upload-progress").hidden = true;
    this.#choose(file);
    this.#dialog.showModal();
    byId(file ? "upload-id" : "upload-file").focus();
  }

  #choose(file) {
    this.#file = file ?? null;
    byId("upload-error").hidden = true;
    byId("upload-send").disabled = !this.#file;
    byId("upload-file-name").textContent = this.#file ? this.#file.name : t("upload.choose");
    byId("upload-file-hint").textContent = this.#file ? size(this.#file.size) : t("upload.hint");
    byId("upload-picker").dataset.chosen = Boolean(this.#file);
    if (this.#file) byId("upload-id").value = suggestId(this.#file.name, this.#takenIds());
  }

  async #send() {
    const avatarId = byId("upload-id").value.trim();
    this.#abort = new AbortController();
    this.#setBusy(true);
    this.#showProgress(0);
    try {
      await uploadAvatar({ avatarId, file: this.#file }, { onSent: (share) => this.#showProgress(share), signal: this.#abort.signal });
      this.#dialog.close();
      this.#onAdded(avatarId);
    } catch (error) {
      if (error instanceof Problem) showProblem(byId("upload-error"), error);
      else if (error.name !== "AbortError") throw error;
    } finally {
      this.#abort = null;
      this.#setBusy(false);
    }
  }

  #setBusy(isBusy) {
    byId("upload-error").hidden ||= isBusy;
    byId("upload-progress").hidden = !isBusy;
    for (const id of ["upload-send", "upload-id", "upload-file"]) byId(id).disabled = isBusy;
  }

  /** share: of the bytes that are sent; once all are, the server prepares the face and the bar has no end in sight. */
  #showProgress(share) {
    const bar = byId("upload-bar");
    if (share < 1) bar.value = share;
    else bar.removeAttribute("value");
    byId("upload-stage").textContent = share < 1 ? t("upload.sending", { percent: Math.round(share * 100) }) : t("upload.preparing");
  }

  #acceptDrops() {
    const hint = byId("drop-hint");
    const isWelcome = ({ dataTransfer }) => dataTransfer.types.includes("Files") && document.body.dataset.view === "lobby" && !this.#abort;
    document.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault(); // without this the browser would leave the page for the file
      hint.hidden = !isWelcome(event) || this.#dialog.open;
    });
    document.addEventListener("dragleave", ({ relatedTarget }) => { hint.hidden ||= relatedTarget === null; });
    document.addEventListener("drop", (event) => {
      event.preventDefault();
      hint.hidden = true;
      const [file] = event.dataTransfer.files;
      if (!file || !isWelcome(event)) return;
      if (this.#dialog.open) this.#choose(file);
      else this.open(file);
    });
  }
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
