/** The API key of a server that asks for one: typed into a sheet, kept in this tab until it is closed. */

import { byId } from "./dom.js";

const STORED = "api_key";
let asking = null; // the one question that everybody waits for

byId("key-cancel").addEventListener("click", () => byId("key").close());

/** The key that was typed, or null. */
export function storedKey() {
  return sessionStorage.getItem(STORED);
}

/** Headers for a call, with the key where there is one. */
export function withKey(headers = {}) {
  const key = storedKey();
  return key ? { ...headers, "x-api-key": key } : headers;
}

/** An address with the key where there is one, for what the browser fetches without headers: pictures, films, event streams. */
export function addressWithKey(address) {
  const key = storedKey();
  return key ? `${address}${address.includes("?") ? "&" : "?"}api_key=${encodeURIComponent(key)}` : address;
}

/** After a call with `refused` (null: without a key) was refused: whether there is another key now. */
export function anotherKey(refused) {
  if (storedKey() !== refused) return Promise.resolve(true); // typed meanwhile
  asking ??= ask(refused !== null).finally(() => { asking = null; });
  return asking;
}

async function ask(wasWrong) {
  const dialog = byId("key");
  byId("key-wrong").hidden = !wasWrong;
  byId("key-form").reset();
  dialog.returnValue = "";
  dialog.showModal();
  await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
  const key = byId("key-input").value.trim();
  if (dialog.returnValue !== "send" || !key) return false;
  sessionStorage.setItem(STORED, key);
  return true;
}
