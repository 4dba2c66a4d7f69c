// The JSON API. A failed call says why in `detail`, and `status` is 0 when the server could not be reached.

export class ApiError extends Error {
  constructor(status, detail, wait = 0) {
    super(detail);
    this.status = status;
    this.wait = wait;
  }
}

/** @param {string} method @param {string} path under /api/v1 @param {any} [body] @param {RequestInit} [options] */
export async function api(method, path, body, options = {}) {
  const headers = body === undefined ? {} : { "content-type": "application/json" };
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), ...options });
  } catch (problem) {
    throw new ApiError(0, String(problem));
  }
  const text = await response.text();
  let said = null;
  try { said = text ? JSON.parse(text) : null; } catch { said = null; }
  if (response.ok) return said;
  const detail = typeof said?.detail === "string" ? said.detail : JSON.stringify(said?.detail ?? text.slice(0, 300));
  throw new ApiError(response.status, detail, Number(response.headers.get("retry-after")) || 0);
}

export const get = (path) => api("GET", path);
export const post = (path, body) => api("POST", path, body);
export const put = (path, body) => api("PUT", path, body);
export const remove = (path) => api("DELETE", path);
