/** The management API as plain functions. Every failure is a Problem. */

import { has, t } from "./i18n.js";

/** What went wrong, as RFC 9457 says it. status 0: the server was not reached. */
export class Problem extends Error {
  constructor({ type = "", title = "", status = 0, detail = "", advice = "" }, retryAfter = null) {
    super(detail || title || `HTTP ${status}`);
    this.slug = type.split(":").pop();
    this.status = status;
    this.advice = advice;
    this.retryAfter = retryAfter; // seconds
  }

  static offline() {
    return new Problem({ type: "offline" });
  }

  static async fromResponse(response) {
    const isProblem = response.headers.get("content-type")?.includes("json");
    const body = isProblem ? await response.json().catch(() => ({})) : {};
    return new Problem({ status: response.status, ...body }, Number(response.headers.get("retry-after")) || null);
  }

  /** Two plain sentences in the page's language: what happened, and what to do about it. */
  sentences() {
    const key = `problem.${this.slug}`;
    return has(key) ? [t(key), t(`${key}.advice`)] : [this.message, this.advice];
  }
}

/** fetch, with every failure turned into a Problem. Addresses are relative, so that the page works below any path. */
async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : Problem.offline();
  }
  if (!response.ok) throw await Problem.fromResponse(response);
  return response.status === 204 ? null : response.json();
}

const session = (id) => `v1/sessions/${encodeURIComponent(id)}`;
const avatar = (id) => `v1/avatars/${encodeURIComponent(id)}`;

/** All avatars with what is known about them, newest first. */
export async function listAvatars() {
  const { avatars } = await call("v1/avatars?detail=true");
  return avatars.sort((a, b) => b.created_at.localeCompare(a.created_at));
}

/** The address of an avatar's picture; it changes when the avatar is made anew. */
export function previewUrl({ avatar_id, created_at }) {
  return `${avatar(avatar_id)}/preview?v=${encodeURIComponent(created_at)}`;
}

/** Whether the avatar shows the bundled sample face and not a face of somebody's own. */
export function isSample({ avatar_id, mock }) {
  return mock || avatar_id === "demo";
}

export function deleteAvatar(id) {
  return call(avatar(id), { method: "DELETE" });
}

/** Makes an avatar from a video file. onSent gets the share of bytes sent, 0 to 1; aborting `signal` stops it. */
export function uploadAvatar({ avatarId, file }, { onSent, signal }) {
  const form = new FormData();
  form.append("avatar_id", avatarId);
  form.append("video_file", file);
  const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
  return new Promise((resolve, reject) => {
    request.open("POST", "v1/avatars/upload");
    request.upload.onprogress = ({ loaded, total }) => onSent(loaded / total);
    request.onload = () => {
      const body = parse(request.responseText);
      if (request.status < 300) resolve(body);
      else reject(new Problem({ status: request.status, ...body }));
    };
    request.onerror = () => reject(Problem.offline());
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}

export function createSession(body, signal) {
  return call("v1/sessions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
}

/** Whether the server still knows the session. Raises a Problem where it cannot be asked. */
export async function sessionExists(id) {
  try {
    await call(session(id));
    return true;
  } catch (problem) {
    if (problem.status === 404) return false;
    throw problem;
  }
}

/** Ends the session; survives the page being closed. A session that is gone already needs no ending. */
export function deleteSession(id) {
  return fetch(session(id), { method: "DELETE", keepalive: true }).catch(() => null);
}
