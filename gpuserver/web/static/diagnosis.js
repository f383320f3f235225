/** The sheet that lists what works on the server, what does not, and what to do. The findings are the server's own sentences. */

import { fetchDiagnosis, Problem } from "./api.js";
import { byId, element, showProblem } from "./dom.js";
import { t } from "./i18n.js";

export class DiagnosisSheet {
  #sheet = byId("diagnosis");
  #found = null;

  constructor() {
    byId("diagnosis-open").addEventListener("click", () => this.#open());
    byId("diagnosis-again").addEventListener("click", () => this.#examine());
  }

  /** Writes everything again, as after a change of the language. */
  draw() {
    if (!this.#found) return;
    byId("diagnosis-summary").textContent = t(this.#found.healthy ? "diagnosis.healthy" : "diagnosis.unhealthy");
    byId("diagnosis-list").replaceChildren(...this.#found.findings.map(line));
  }

  #open() {
    byId("settings").hidePopover();
    this.#sheet.showModal();
    this.#examine();
  }

  async #examine() {
    this.#found = null;
    byId("diagnosis-problem").hidden = true;
    byId("diagnosis-list").replaceChildren();
    byId("diagnosis-summary").textContent = t("diagnosis.running");
    byId("diagnosis-again").disabled = true;
    try {
      this.#found = await fetchDiagnosis();
      this.draw();
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      byId("diagnosis-summary").textContent = "";
      showProblem(byId("diagnosis-problem"), error);
    } finally {
      byId("diagnosis-again").disabled = false;
    }
  }
}

function line({ name, status, detail, advice }) {
  const said = [element("strong", {}, name), " ", element("span", {}, detail)];
  if (advice) said.push(element("em", {}, advice));
  return element("li", { data: { status } }, element("b", {}, t(`diagnosis.${status}`)), element("p", {}, ...said));
}
