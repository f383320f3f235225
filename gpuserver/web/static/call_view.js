/** The call as the user sees it: the face, the conversation, the composer. */

import { Problem } from "./api.js";
import { Call } from "./call.js";
import { Conversation } from "./chat.js";
import { byId } from "./dom.js";
import { has, t } from "./i18n.js";
import { anotherModel } from "./missing.js";
import { Stage } from "./stage.js";
import { StatsOverlay } from "./stats.js";
import { TraceTable } from "./trace.js";

const STUDENT_KEY = "student_id";
const LASTING = new Set(["voice_fallback", "model_fallback"]); // notices that hold for more than one answer
const LONGEST_BYTES = 250_000; // the server takes messages of 256 kB

/** Who calls from this browser; made up once, so that the server can tell its callers apart. */
function studentId() {
  const id = localStorage.getItem(STUDENT_KEY) ?? `page-${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`;
  localStorage.setItem(STUDENT_KEY, id);
  return id;
}

/** What the server wants to be known, in the page's language where it has words for it. */
function noticeText(code, text) {
  if (code === "model_fallback") {
    const another = anotherModel(text);
    return another ? t("missing.default_model", another) : t("missing.model");
  }
  return has(`notice.${code}`) ? t(`notice.${code}`) : text;
}

export class CallView {
  #stage = new Stage();
  #conversation = new Conversation();
  #trace = new TraceTable();
  #stats = new StatsOverlay(() => this.#call?.stats());
  #settings;
  #call = null;
  #latestTurn = 0;
  #pastTurn = 0; // turns up to this one no longer tell what the face is doing
  #handlers = {
    text_stream: ({ turn, delta }) => this.#conversation.written(turn, delta),
    text_complete: ({ turn, text }) => this.#conversation.complete(turn, text),
    speech_started: ({ turn }) => this.#showTurn(turn, "speaking"),
    speech_ended: ({ turn, text }) => {
      this.#conversation.heard(turn, text);
      this.#showTurn(turn, "listening");
    },
    interrupted: ({ turn }) => {
      this.#conversation.interrupted(turn);
      this.#showTurn(turn, "listening");
    },
    trace: (trace) => {
      this.#trace.show(trace);
      this.#showTurn(trace.turn, "listening");
    },
    notice: ({ turn, code, text }) => {
      const shown = noticeText(code, text);
      this.#conversation.note("notice", shown, LASTING.has(code) ? shown : `${turn}.${code}`);
    },
    error: ({ turn, error }) => {
      this.#conversation.note("problem", new Problem(error).sentences().filter(Boolean).join(" "));
      if (turn === null) this.#stage.show("listening");
      else this.#showTurn(turn, "listening");
    },
  };

  /** settings: the Settings that the answers follow. */
  constructor(settings) {
    this.#settings = settings;
    settings.addEventListener("change", () => this.#call?.configure(settings.chosen));
    byId("hang-up").addEventListener("click", () => this.#call?.hangUp());
    byId("interrupt").addEventListener("click", () => this.#interrupt());
    byId("composer").addEventListener("submit", (event) => { event.preventDefault(); this.#submit(); });
    byId("composer").addEventListener("change", () => this.draw());
    byId("text").addEventListener("keydown", (event) => this.#typed(event));
    document.addEventListener("keydown", ({ key }) => {
      const closesSomething = document.querySelector(":popover-open, dialog[open]");
      if (key === "Escape" && !closesSomething) this.#interrupt();
    });
    byId("trace").addEventListener("toggle", () => this.#conversation.scrollToEnd());
    addEventListener("pagehide", () => this.#call?.hangUp());
  }

  /** Calls the avatar; resolves after the end of the call, with the Problem that ended it or null. */
  async talkTo(avatar) {
    let ending = null;
    const caller = { tutor_id: avatar.tutor_id ?? "page", student_id: studentId() };
    const request = { ...caller, avatar_id: avatar.avatar_id, ...this.#settings.chosen };
    const call = new Call(request, () => this.#conversation.history());
    this.#call = call;
    this.#conversation.clear();
    this.#trace.clear();
    this.#stage.open(avatar);
    byId("call").dataset.sessionId = "";
    call.addEventListener("state", ({ detail }) => this.#showState(detail));
    call.addEventListener("session", ({ detail }) => this.#startSession(detail));
    call.addEventListener("track", ({ detail }) => this.#stage.addTrack(detail));
    call.addEventListener("message", ({ detail }) => this.#handlers[detail.type]?.(detail));
    call.addEventListener("unreachable", () => this.#conversation.note("problem", t("call.no_media")));
    call.addEventListener("problem", ({ detail }) => { ending = detail; });
    if (matchMedia("(pointer: fine)").matches) byId("text").focus(); // on a phone this would open the keyboard over the face
    await call.run();
    this.#stage.close();
    this.#stats.close();
    byId("settings").hidePopover();
    this.#call = null;
    return ending;
  }

  /** Writes everything that depends on the language or on the mode again. */
  draw() {
    const mode = byId("composer").elements.mode.value;
    byId("text").placeholder = t(`composer.${mode}_placeholder`);
    byId("text").ariaLabel = t(`composer.${mode}_placeholder`);
    this.#stage.draw();
    this.#trace.draw();
  }

  #showState({ state, seconds }) {
    const isConnected = state === "connected";
    byId("send").disabled = !isConnected;
    if (state !== "ended") this.#stage.show(isConnected ? "listening" : state, { seconds });
    this.draw();
  }

  #submit() {
    const field = byId("text");
    const text = field.value.trim();
    const mode = byId("composer").elements.mode.value;
    if (new TextEncoder().encode(JSON.stringify(text)).length > LONGEST_BYTES) {
      this.#conversation.note("problem", t("composer.too_long"));
      return;
    }
    if (!text || !this.#call?.[mode](text)) return;
    if (mode === "ask") this.#conversation.asked(text); // what is to be said word for word comes back as the answer
    this.#pastTurn = this.#latestTurn;
    this.#stage.show("thinking");
    field.value = "";
  }

  /** Enter sends, Shift+Enter starts a new line; Enter that ends the input of a Chinese word does neither. */
  #typed(event) {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.#submit();
  }

  #interrupt() {
    if (!byId("interrupt").disabled) this.#call?.interrupt();
  }

  /** Shows what the face is doing, unless the user has asked something new since that turn. */
  #showTurn(turn, state) {
    this.#latestTurn = Math.max(this.#latestTurn, turn);
    if (turn > this.#pastTurn) this.#stage.show(state);
  }

  #startSession({ session_id: sessionId }) {
    const isRenewed = byId("call").dataset.sessionId !== "";
    byId("call").dataset.sessionId = sessionId;
    this.#latestTurn = this.#pastTurn = 0;
    this.#conversation.startSession();
    if (isRenewed) this.#conversation.note("notice", t("call.resumed"));
  }
}
