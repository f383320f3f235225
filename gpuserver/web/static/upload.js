/** The sheet that makes a face from a video or picture: choose or drop it, name it, watch it being prepared, see how good it is. */

import { Problem } from "./api.js";
import { byId, showProblem } from "./dom.js";
import { has, t } from "./i18n.js";
import { AvatarJob } from "./job.js";
import { reportView } from "./report.js";

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
  #job = null;
  #madeId = null;
  #takenIds;
  #onAdded;
  #onCall;

  /** takenIds: gives the ids in use. onAdded gets the id of a new avatar; onCall gets it when the user wants to talk at once. */
  constructor({ takenIds, onAdded, onCall }) {
    this.#takenIds = takenIds;
    this.#onAdded = onAdded;
    this.#onCall = onCall;
    byId("upload-file").addEventListener("change", ({ target }) => this.#choose(target.files[0]));
    byId("upload-cancel").addEventListener("click", () => (this.#job ? this.#job.stop() : this.#dialog.close()));
    byId("upload-call").addEventListener("click", () => {
      this.#dialog.close();
      this.#onCall(this.#madeId);
    });
    byId("upload-form").addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#file) this.#send();
    });
    this.#dialog.addEventListener("close", () => this.#job?.stop());
    this.#acceptDrops();
  }

  /** Opens the sheet, with a file where one was dropped. */
  open(file = null) {
    byId("upload-form").reset();
    this.#show("choose");
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
    const job = new AvatarJob();
    this.#job = job;
    this.#show("busy");
    this.#showProgress({ stage: "sending", share: 0 });
    try {
      const wish = { avatarId, file: this.#file, blur: byId("upload-blur").checked };
      const report = await job.make(wish, (progress) => this.#showProgress(progress));
      this.#showResult(avatarId, report);
      this.#onAdded(avatarId);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      this.#show("choose");
      showProblem(byId("upload-error"), error);
    } finally {
      this.#job = null;
    }
  }

  /** step: choose, busy or done. */
  #show(step) {
    this.#dialog.dataset.step = step;
    byId("upload-title").textContent = t("upload.title");
    byId("upload-error").hidden = true;
    byId("upload-fields").disabled = step === "busy";
    byId("upload-fields").hidden = step === "done";
    byId("upload-progress").hidden = step !== "busy";
    byId("upload-result").hidden = step !== "done";
    byId("upload-send").hidden = step !== "choose";
    byId("upload-call").hidden = step !== "done";
    byId("upload-cancel").textContent = t({ choose: "upload.cancel", busy: "upload.stop", done: "upload.close" }[step]);
  }

  /** stage: "sending" or a stage of the server's; share: how far that is, 0 to 1. */
  #showProgress({ stage, share }) {
    const key = has(`stage.${stage}`) ? `stage.${stage}` : "stage.preparing";
    byId("upload-bar").value = share;
    byId("upload-bar").dataset.stage = stage;
    byId("upload-stage").textContent = t(key, { percent: Math.round(share * 100) });
  }

  #showResult(avatarId, report) {
    this.#madeId = avatarId;
    this.#show("done");
    byId("upload-title").textContent = t("upload.ready", { name: avatarId });
    byId("upload-result").replaceChildren(...(report ? [reportView(report)] : []));
    byId("upload-call").focus();
  }

  #acceptDrops() {
    const hint = byId("drop-hint");
    const isWelcome = ({ dataTransfer }) => dataTransfer.types.includes("Files") && document.body.dataset.view === "lobby" && !this.#job;
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
      if (this.#dialog.open && this.#dialog.dataset.step === "choose") this.#choose(file);
      else this.open(file);
    });
  }
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
