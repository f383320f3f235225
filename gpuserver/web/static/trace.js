/** How the last answer came about: each stage in milliseconds since the question. */

import { byId, element } from "./dom.js";
import { t } from "./i18n.js";

const STAGES = ["first_token", "first_sentence", "first_sound", "first_mouth_frame", "first_packet", "interrupted", "done"];

export class TraceTable {
  #last = null;

  clear() {
    this.#last = null;
    byId("trace").hidden = true;
  }

  /** trace: {marks: {stage: ms}, model, voice}. */
  show(trace) {
    this.#last = trace;
    this.draw();
  }

  /** Draws the last trace again, as after a change of the language. */
  draw() {
    if (!this.#last) return;
    const { marks, model, voice } = this.#last;
    const reached = STAGES.filter((stage) => stage in marks);
    const longest = Math.max(...reached.map((stage) => marks[stage]), 1);
    const rows = reached.map((stage) => stageRow(stage, marks[stage], longest));
    if (model) rows.push(plainRow("trace.model", model));
    if (voice) rows.push(plainRow("trace.voice", voice));
    byId("trace-rows").replaceChildren(...rows);
    const ms = marks.first_packet;
    byId("trace-summary").textContent = ms === undefined ? t("trace.summary_silent") : t("trace.summary", { ms: Math.round(ms) });
    byId("trace").hidden = false;
  }
}

function stageRow(stage, ms, longest) {
  const bar = element("span", { className: "bar-fill" });
  bar.style.inlineSize = `${(ms / longest) * 100}%`;
  const row = plainRow(`trace.${stage}`, t("trace.ms", { ms: Math.round(ms) }), bar);
  Object.assign(row.dataset, { stage, ms });
  return row;
}

function plainRow(key, value, ...bar) {
  return element("tr", {}, element("th", { scope: "row" }, t(key)), element("td", { className: "track" }, ...bar), element("td", {}, value));
}
