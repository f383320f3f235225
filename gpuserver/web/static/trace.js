/** How the last answer came about: each stage in milliseconds since the question, as bars one below the other. */

import { byId, element } from "./dom.js";
import { t } from "./i18n.js";

const STAGES = ["first_token", "first_sentence", "first_sound", "first_mouth_frame", "first_packet", "interrupted", "done"];

export class TraceTable {
  #last = null;

  clear() {
    this.#last = null;
    byId("trace").hidden = byId("stats-trace").hidden = true;
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
    const rows = stageRows(marks);
    if (model) rows.push(plainRow("trace.model", model));
    if (voice) rows.push(plainRow("trace.voice", voice));
    byId("trace-rows").replaceChildren(...rows);
    byId("stats-trace-rows").replaceChildren(...stageRows(marks, ["done", "interrupted"])); // the end would dwarf the rest
    const ms = marks.first_packet;
    byId("trace-summary").textContent = ms === undefined ? t("trace.summary_silent") : t("trace.summary", { ms: Math.round(ms) });
    byId("trace").hidden = byId("stats-trace").hidden = false;
  }
}

function stageRows(marks, without = []) {
  const reached = STAGES.filter((stage) => stage in marks && !without.includes(stage));
  const longest = Math.max(...reached.map((stage) => marks[stage]), 1);
  return reached.map((stage) => stageRow(stage, marks[stage], longest));
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
