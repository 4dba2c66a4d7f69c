// A file to the server, with progress: fetch tells none of what it sends.

import { ApiError } from "./api.js";

/** @param {string} path under /api/v1 @param {File} file @param {string} type @param {(share: number) => void} tell how much is sent, 0 … 1 */
export function upload(path, file, type, tell) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1${path}`);
    request.setRequestHeader("content-type", type);
    request.upload.onprogress = (event) => { if (event.lengthComputable) tell(event.loaded / event.total); };
    request.onerror = () => reject(new ApiError(0, ""));
    request.onload = () => {
      let said = null;
      try { said = JSON.parse(request.responseText); } catch { said = null; }
      if (request.status >= 200 && request.status < 300) resolve(said);
      else reject(new ApiError(request.status, typeof said?.detail === "string" ? said.detail : request.responseText.slice(0, 300)));
    };
    request.send(file);
  });
}
