/** The management API as plain functions. Every failure is a Problem. */

import { has, t } from "./i18n.js";
import { addressWithKey, anotherKey, storedKey, withKey } from "./key.js";

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

/**
 * fetch, with every failure turned into a Problem; asks for the API key where the server does. Addresses are relative, so that the page
 * works below any path.
 */
async function call(path, options = {}) {
  const key = storedKey();
  let response;
  try {
    response = await fetch(path, { ...options, headers: withKey(options.headers) });
  } catch (error) {
    throw error.name === "AbortError" ? error : Problem.offline();
  }
  if (response.ok) return response.status === 204 ? null : response.json();
  const problem = await Problem.fromResponse(response);
  if (problem.slug === "key-required" && (await anotherKey(key))) return call(path, options);
  throw problem;
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
  return addressWithKey(`${avatar(avatar_id)}/preview?v=${encodeURIComponent(created_at)}`);
}

/** The address of an avatar's idle loop as a film. */
export function filmUrl({ avatar_id, created_at }) {
  return addressWithKey(`${avatar(avatar_id)}/idle.mp4?v=${encodeURIComponent(created_at)}`);
}

/** Whether the avatar shows the bundled sample face and not a face of somebody's own. */
export function isSample({ avatar_id, mock }) {
  return mock || avatar_id === "demo";
}

export function deleteAvatar(id) {
  return call(avatar(id), { method: "DELETE" });
}

const job = (id) => `v1/jobs/${encodeURIComponent(id)}`;

/** The address of the events that tell how far a job is. */
export function jobEventsUrl(id) {
  return addressWithKey(`${job(id)}/events`);
}

/** Stops a job; one that has ended meanwhile needs no stopping. */
export function deleteJob(id) {
  return fetch(job(id), { method: "DELETE", keepalive: true, headers: withKey() }).catch(() => null);
}

/** What a session may name as its voice: [{id, name, language, available}]. */
export async function listVoices() {
  return (await call("v1/voices")).voices;
}

/** What works on the server and what does not: {healthy, findings: [{name, status, detail, advice}]}. Takes some seconds. */
export async function fetchDiagnosis() {
  return call("v1/diagnosis");
}

/** What a session may name as its language model: [{id, default}]. */
export async function listModels() {
  return (await call("v1/models")).models;
}

/** What the server's parts say about themselves, also while one of them is down. */
export async function fetchComponents() {
  const response = await fetch("health").catch(() => null);
  const health = await response?.json().catch(() => null);
  return health?.components ?? {};
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
  return fetch(session(id), { method: "DELETE", keepalive: true, headers: withKey() }).catch(() => null);
}
