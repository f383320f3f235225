/** The page's language: chosen by the browser, switched by the user, remembered. */

import { STRINGS } from "./strings.js";

const KEY = "language";
const changes = new EventTarget();
let language = localStorage.getItem(KEY) ?? fromBrowser(navigator.languages);

/** "zh" where the user prefers any Chinese, else "en". */
function fromBrowser(preferred) {
  const known = preferred.map((tag) => tag.slice(0, 2).toLowerCase()).find((tag) => tag in STRINGS);
  return known ?? "en";
}

/** The text of `key` in the current language; {name} is replaced from `values`. */
export function t(key, values = {}) {
  const text = STRINGS[language][key] ?? STRINGS.en[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

/** Whether the current language has a text of its own for `key`. */
export function has(key) {
  return key in STRINGS[language];
}

export function currentLanguage() {
  return language;
}

/** Calls `listener` after every change of the language. */
export function onLanguageChange(listener) {
  changes.addEventListener("change", listener);
}

/** Shows the page in the other language. */
export function switchLanguage() {
  language = language === "zh" ? "en" : "zh";
  localStorage.setItem(KEY, language);
  translatePage();
  changes.dispatchEvent(new Event("change"));
}

/** Fills every element that names its text by data-i18n (content) or data-i18n-label (accessible name). */
export function translatePage() {
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  document.title = t("title");
  for (const element of document.querySelectorAll("[data-i18n]")) element.textContent = t(element.dataset.i18n);
  for (const element of document.querySelectorAll("[data-i18n-label]")) {
    element.setAttribute("aria-label", t(element.dataset.i18nLabel));
    element.title = t(element.dataset.i18nLabel);
  }
}
