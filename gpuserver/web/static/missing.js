/** What the server says it lacks, in a plain line each, with what to do about it. */

import { fetchComponents } from "./api.js";
import { byId, element } from "./dom.js";
import { t } from "./i18n.js";

/** Which model answers instead of which, in the words of the server; null where none does. */
export function anotherModel(fallback) {
  const found = fallback?.match(/^The model (\S+) is not there, (\S+) answers/);
  return found ? { wanted: found[1], name: found[2] } : null;
}

export class Missing {
  #components = {};

  /** Asks the server again. */
  async refresh() {
    this.#components = await fetchComponents();
    this.draw();
  }

  /** Writes the lines again, as after a change of the language. */
  draw() {
    const lines = [...missingParts(this.#components)];
    byId("missing").replaceChildren(...lines.map(({ code, text }) => element("li", { data: { code } }, text)));
    byId("missing").hidden = lines.length === 0;
  }
}

function* missingParts({ media_server: media, language_model: model, voice }) {
  const line = (code, values) => ({ code, text: t(`missing.${code}`, values) });
  if (media && media.status !== "ok") yield line("media");
  const another = anotherModel(model?.fallback);
  if (another) yield line("default_model", another);
  else if (model && (model.model === "echo" || model.fallback || model.message)) yield line("model");
  if (voice?.["edge-tts"] === "unreachable") yield line("network_voice");
  if (voice?.http === "unreachable") yield line("service_voice");
}
