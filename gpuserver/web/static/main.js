/** Puts the page together: the lobby with its gallery, and the call. */

import { CallView } from "./call_view.js";
import { DiagnosisSheet } from "./diagnosis.js";
import { byId } from "./dom.js";
import { Gallery } from "./gallery.js";
import { onLanguageChange, switchLanguage, t, translatePage } from "./i18n.js";
import { Missing } from "./missing.js";
import { Settings } from "./settings.js";
import { UploadSheet } from "./upload.js";

function showView(name) {
  document.body.dataset.view = name;
  for (const view of ["lobby", "call"]) byId(view).hidden = view !== name;
}

function showLanguageSwitch() {
  for (const button of document.querySelectorAll("[data-action=switch-language]")) button.textContent = t("language.other");
}

const gallery = new Gallery({ onCall: (avatar) => call(avatar), onAdd: () => sheet.open() });

const sheet = new UploadSheet({
  takenIds: () => gallery.ids,
  onAdded: async (id) => {
    await gallery.refresh();
    gallery.say(t("gallery.added", { name: id }));
  },
  onCall: async (id) => {
    if (!gallery.get(id)) await gallery.refresh(); // made just now
    const avatar = gallery.get(id);
    if (avatar) await call(avatar);
  },
});

const settings = new Settings();
const missing = new Missing();
const diagnosis = new DiagnosisSheet();
const callView = new CallView(settings);

async function call(avatar) {
  showView("call");
  const problem = await callView.talkTo(avatar);
  showView("lobby");
  missing.refresh();
  await gallery.refresh();
  gallery.focus(avatar.avatar_id);
  if (problem) gallery.showProblem(problem);
}

translatePage();
showLanguageSwitch();
document.addEventListener("click", ({ target }) => {
  if (target.closest("[data-action=switch-language]")) switchLanguage();
});
onLanguageChange(() => {
  showLanguageSwitch();
  gallery.draw();
  settings.draw();
  missing.draw();
  diagnosis.draw();
  callView.draw();
});
missing.refresh();
gallery.refresh();
