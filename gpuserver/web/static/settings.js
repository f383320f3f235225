/** The popover where voice, speed and language model are chosen. The choice is remembered in this browser. */

import { listModels, listVoices, Problem } from "./api.js";
import { byId, element } from "./dom.js";
import { currentLanguage, t } from "./i18n.js";

const KEY = "settings";
const NORMAL = { voice: null, rate: 1, model: null };
const SEVERAL_LANGUAGES = "mul"; // ISO 639-2

/** Event "change": the user has chosen differently. */
export class Settings extends EventTarget {
  #chosen = { ...NORMAL, ...remembered() };
  #voices = [];
  #models = [];

  constructor() {
    super();
    byId("settings").addEventListener("beforetoggle", ({ newState }) => { if (newState === "open") this.#refresh(); });
    byId("settings-voice").addEventListener("change", ({ target }) => this.#choose({ voice: target.value || null }));
    byId("settings-model").addEventListener("change", ({ target }) => this.#choose({ model: target.value || null }));
    byId("settings-rate").addEventListener("input", () => this.#showRate());
    byId("settings-rate").addEventListener("change", ({ target }) => this.#choose({ rate: Number(target.value) }));
    this.draw();
  }

  /** {voice, rate, model} as POST /v1/sessions and the message "configure" take them. */
  get chosen() {
    return { ...this.#chosen };
  }

  /** Writes everything again, as after a change of the language. */
  draw() {
    this.#drawVoices();
    this.#drawModels();
    byId("settings-rate").value = this.#chosen.rate;
    this.#showRate();
  }

  /** Asks the server what there is to choose from; what it does not say stays as it was. */
  async #refresh() {
    const [voices, models] = await Promise.allSettled([listVoices(), listModels()]);
    for (const { reason } of [voices, models]) if (reason && !(reason instanceof Problem)) throw reason;
    this.#voices = voices.value ?? this.#voices;
    this.#models = models.value ?? this.#models;
    this.draw();
  }

  #choose(change) {
    Object.assign(this.#chosen, change);
    localStorage.setItem(KEY, JSON.stringify(this.#chosen));
    this.dispatchEvent(new Event("change"));
  }

  #drawVoices() {
    const groups = new Map();
    for (const voice of this.#voices) {
      const language = languageName(voice.language);
      groups.set(language, [...(groups.get(language) ?? []), voice]);
    }
    const grouped = [...groups].map(([label, voices]) => element("optgroup", { label }, ...voices.map(voiceOption)));
    fill(byId("settings-voice"), [option("", t("settings.voice_auto")), ...grouped], this.#chosen.voice);
  }

  #drawModels() {
    const standard = this.#models.find((model) => model.default);
    const label = standard ? t("settings.model_auto_named", { name: standard.id }) : t("settings.model_auto");
    const first = option("", this.#models.length ? label : t("settings.model_none"));
    fill(byId("settings-model"), [first, ...this.#models.map(({ id }) => option(id, id))], this.#chosen.model);
    byId("settings-model").disabled = !this.#models.length;
  }

  #showRate() {
    const rate = Number(byId("settings-rate").value).toFixed(1);
    byId("settings-rate-value").textContent = t("settings.rate_value", { rate });
  }
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

function option(value, label) {
  return element("option", { value }, label);
}

function voiceOption({ id, name, available }) {
  return option(id, available ? name : t("settings.unreachable", { name }));
}

/** Shows the options with `chosen` selected; what the server does not list now stays chosen all the same. */
function fill(select, options, chosen) {
  select.replaceChildren(...options);
  if (chosen && ![...select.options].some(({ value }) => value === chosen)) select.append(option(chosen, chosen));
  select.value = chosen ?? "";
}

function languageName(tag) {
  if (tag === SEVERAL_LANGUAGES) return t("settings.many_languages");
  return new Intl.DisplayNames(currentLanguage(), { type: "language" }).of(tag);
}
