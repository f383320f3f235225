/** The making of an avatar: the file is sent, then the server's work on it is followed. Either can be stopped. */

import { deleteJob, jobEventsUrl, Problem } from "./api.js";
import { withKey } from "./key.js";

/** What a job tells of itself: {state, stage, progress, report, error}; see GET /v1/jobs/{id}. */
export class AvatarJob {
  #abort = new AbortController();

  /**
   * Resolves with the quality report when the avatar is there. onProgress gets ({stage, share}): stage "sending" with the share of the
   * bytes that are sent, then the server's own stages. Raises Problem; after `stop` one with the slug "cancelled".
   */
  async make({ avatarId, file, blur }, onProgress) {
    const form = new FormData();
    form.append("avatar_id", avatarId);
    form.append("apply_blur", blur);
    form.append("video_file", file);
    const { job_id: jobId } = await this.#upload(form, (share) => onProgress({ stage: "sending", share }));
    const job = await this.#follow(jobId, onProgress);
    if (job.state === "done") return job.report;
    throw new Problem(job.error);
  }

  stop() {
    this.#abort.abort();
  }

  #upload(form, onSent) {
    const request = new XMLHttpRequest(); // fetch does not tell how much has been sent
    return new Promise((resolve, reject) => {
      request.open("POST", "v1/avatars/upload");
      for (const [name, value] of Object.entries(withKey({ prefer: "respond-async" }))) request.setRequestHeader(name, value);
      request.upload.onprogress = ({ loaded, total }) => onSent(loaded / total);
      request.onload = () => {
        const body = parse(request.responseText);
        if (request.status === 202) resolve(body);
        else reject(new Problem({ status: request.status, ...body }));
      };
      request.onerror = () => reject(Problem.offline());
      request.onabort = () => reject(new Problem({ type: "cancelled" }));
      this.#abort.signal.addEventListener("abort", () => request.abort());
      request.send(form);
    });
  }

  /** Resolves with the job's last state. */
  #follow(jobId, onProgress) {
    const events = new EventSource(jobEventsUrl(jobId));
    const stop = () => deleteJob(jobId); // its last event says what became of it
    this.#abort.signal.addEventListener("abort", stop);
    const followed = new Promise((resolve, reject) => {
      events.addEventListener("job", ({ data }) => {
        const job = JSON.parse(data);
        if (job.state === "queued" || job.state === "running") onProgress({ stage: job.stage, share: job.progress });
        else resolve(job);
      });
      events.onerror = () => { if (events.readyState === EventSource.CLOSED) reject(Problem.offline()); }; // else it connects again
    });
    if (this.#abort.signal.aborted) stop();
    return followed.finally(() => events.close());
  }
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return {};
  }
}
