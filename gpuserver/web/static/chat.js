/** The conversation: what was asked, what is being answered, what the server wants to be known. */

import { byId, element } from "./dom.js";
import { t } from "./i18n.js";

const REMEMBERED = 50; // the server takes no more lines of history
const LONGEST_LINE = 32_000; // characters of each
const LONGEST_HISTORY = 300_000; // characters of all, so that a session can be asked for at once
const NEAR_END_PX = 80;
const LONGEST_MARKUP = 300; // characters in a row that are written but not spoken, as the address of a link

export class Conversation {
  #log = byId("log");
  #lines = []; // {role, content, bubble, turn?, heard?}
  #noted = new Set(); // what need not be said again

  constructor() {
    this.clear();
  }

  clear() {
    this.#lines = [];
    this.#noted.clear();
    this.#log.replaceChildren(element("p", { className: "empty", data: { i18n: "call.empty" } }, t("call.empty")));
  }

  /** What a session that replaces a lost one is told: [{role, content}]. */
  history() {
    const said = this.#lines.filter(({ content }) => content.trim()).slice(-REMEMBERED);
    const lines = said.map(({ role, content }) => ({ role, content: content.slice(0, LONGEST_LINE) }));
    let room = LONGEST_HISTORY;
    return lines.reverse().filter(({ content }) => (room -= content.length) >= 0).reverse();
  }

  /** The user's question. */
  asked(text) {
    this.#add({ role: "user", content: text });
  }

  /** A piece of the answer, as the language model writes it. */
  written(turn, delta) {
    const line = this.#answer(turn);
    this.#write(line, line.content + delta);
  }

  /** The whole answer. */
  complete(turn, text) {
    this.#write(this.#answer(turn), text);
    this.#announce(text);
  }

  /** The answer has been said as far as `text`. */
  heard(turn, text) {
    if (!text && !this.#find(turn)) return; // nothing was written and nothing was said
    const line = this.#answer(turn);
    line.heard = text;
    if (!line.content) this.#write(line, text);
  }

  /** The answer was stopped; how much of it was heard is known by now, unless it was nothing. */
  interrupted(turn) {
    const line = this.#find(turn);
    if (!line) return; // stopped before the first word was written
    line.heard ??= "";
    this.#cut(line);
  }

  /** Shows the latest line. */
  scrollToEnd() {
    this.#log.scrollTop = this.#log.scrollHeight;
  }

  /** Turn numbers start anew with each session. */
  startSession() {
    for (const line of this.#lines) line.turn = undefined;
    this.#noted.clear();
  }

  /** Something beside the conversation. kind: "notice" or "problem". once: names what need not be said twice. */
  note(kind, text, once = null) {
    if (this.#noted.has(once)) return;
    if (once) this.#noted.add(once);
    this.#append(element("p", { className: "note", dir: "auto", data: { kind } }, text));
    this.#announce(text);
  }

  #find(turn) {
    return this.#lines.find((line) => line.turn === turn);
  }

  #answer(turn) {
    return this.#find(turn) ?? this.#add({ role: "assistant", content: "", turn });
  }

  #add(line) {
    const bubble = element("p", { className: "bubble", dir: "auto", data: { role: line.role } }, line.content);
    if (line.turn !== undefined) bubble.dataset.turn = line.turn;
    const added = { ...line, bubble };
    this.#lines.push(added);
    this.#append(bubble);
    return added;
  }

  #write(line, content) {
    const follow = this.#isAtEnd();
    line.content = content;
    line.bubble.textContent = content;
    if (follow) this.scrollToEnd();
  }

  /** What was never heard does not count as said: it is greyed out, and left out of the history. */
  #cut(line) {
    const said = writtenLength(line.content, line.heard);
    const note = element("em", { data: { i18n: "message.interrupted" } }, t("message.interrupted"));
    line.bubble.replaceChildren(line.content.slice(0, said), element("s", {}, line.content.slice(said)), note);
    line.bubble.dataset.interrupted = "true";
    line.content = line.heard;
    this.scrollToEnd();
  }

  #append(node) {
    this.#log.querySelector(".empty")?.remove();
    this.#log.append(node);
    this.scrollToEnd();
  }

  /** Tells a screen reader whole texts; the log itself grows word by word, which nobody wants to be read. */
  #announce(text) {
    byId("announcer").textContent = text;
  }

  #isAtEnd() {
    return this.#log.scrollHeight - this.#log.scrollTop - this.#log.clientHeight < NEAR_END_PX;
  }
}

/** How much of the written text has been said once `spoken` was heard: markup, emoji and line breaks are written but not spoken. */
function writtenLength(written, spoken) {
  let end = 0;
  for (const letter of spoken.replace(/\s+/g, "")) {
    const found = written.indexOf(letter, end);
    if (found < 0 || found - end > LONGEST_MARKUP) return written.length; // said in other words
    end = found + letter.length;
  }
  return end;
}
