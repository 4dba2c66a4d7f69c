// Clips that share one clock: played, stopped, stepped and slowed down together, held for a moment on the last frame.

import { h } from "../lib/dom.js";
import { t } from "../lib/i18n.js";

const HOLD_S = 0.2;
const FRAME_S = 1 / 30;
const STEP_S = 0.034; // clips further apart than a frame are brought together
const SPEEDS = [0.25, 0.5, 1, 1.5, 2];

export class Clips {
  /** @param {HTMLVideoElement[]} videos */
  constructor(videos) {
    this.videos = videos;
    this.speed = 1;
    this.playing = true;
    this.ended = new Set();
    this.seen = false; // every frame of every clip once
    this.broken = null;
    this.plays = 1;
    this.bar = h("progress", { max: 1, value: 0, "aria-label": t("clips.position") });
    this.button = h("button", { type: "button", onclick: () => this.toggle() }, t("clips.pause"), h("kbd", {}, "␣"));
    this.said = h("span", { className: "number" }, "1×");
    this.controls = h("div", { className: "clock" },
      h("button", { type: "button", className: "quiet", "aria-label": t("clips.back"), onclick: () => this.step(-1) }, h("kbd", {}, ",")), this.button,
      h("button", { type: "button", className: "quiet", "aria-label": t("clips.forward"), onclick: () => this.step(1) }, h("kbd", {}, ".")), this.bar,
      h("button", { type: "button", className: "quiet", "aria-label": t("clips.slower"), onclick: () => this.faster(-1) }, h("kbd", {}, "[")), this.said,
      h("button", { type: "button", className: "quiet", "aria-label": t("clips.faster"), onclick: () => this.faster(1) }, h("kbd", {}, "]")));
    videos.forEach((video, i) => {
      video.addEventListener("ended", () => this.end(video));
      video.addEventListener("error", () => { this.broken = i; video.dispatchEvent(new CustomEvent("broken", { bubbles: true })); });
    });
  }

  /** Begin; called when the clips are on the page. */
  start() {
    this.onframe = () => { this.tick(); this.frame = requestAnimationFrame(this.onframe); };
    this.frame = requestAnimationFrame(this.onframe);
    this.play();
  }

  stop() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.hold);
    for (const video of this.videos) video.pause();
  }

  get first() { return this.videos[0]; }
  get length() { return Math.max(0, ...this.videos.map((video) => (Number.isFinite(video.duration) ? video.duration : 0))); }
  get now() { return Math.max(...this.videos.map((video) => video.currentTime)); }

  async play() {
    this.playing = true;
    this.label();
    await Promise.allSettled(this.videos.filter((video) => !this.ended.has(video)).map((video) => video.play()));
  }

  pause() {
    this.playing = false;
    clearTimeout(this.hold);
    for (const video of this.videos) video.pause();
    this.together(this.now);
    this.label();
  }

  toggle() {
    if (this.playing) this.pause();
    else if (this.ended.size === this.videos.length) this.again();
    else this.play();
  }

  step(frames) {
    this.pause();
    this.ended.clear();
    this.together(Math.min(Math.max(0, this.now + frames * FRAME_S), Math.max(0, this.length - 0.001)));
  }

  faster(by) {
    this.speed = SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, SPEEDS.indexOf(this.speed) + by))];
    for (const video of this.videos) video.playbackRate = this.speed;
    this.said.textContent = `${this.speed}×`;
  }

  together(time) {
    for (const video of this.videos) if (Number.isFinite(video.duration)) video.currentTime = Math.min(time, video.duration);
  }

  end(video) {
    this.ended.add(video);
    if (this.ended.size < this.videos.length) return; // the longer one still plays; this one holds its last frame
    this.seen = true;
    for (const each of this.videos) each.dispatchEvent(new CustomEvent("watched", { bubbles: true }));
    if (this.playing) this.hold = setTimeout(() => this.again(), HOLD_S * 1000);
  }

  again() {
    this.ended.clear();
    this.plays += 1;
    this.together(0);
    this.play();
  }

  /** Keep step: whoever is ahead by more than a frame waits for the others. */
  tick() {
    if (this.length) this.bar.value = this.now / this.length;
    if (!this.playing) return;
    const going = this.videos.filter((video) => !this.ended.has(video) && video.readyState >= 2);
    if (going.length < 2) return;
    const behind = Math.min(...going.map((video) => video.currentTime));
    for (const video of going) {
      const ahead = video.currentTime - behind;
      if (ahead > 5 * STEP_S) video.currentTime = behind;
      else video.playbackRate = ahead > STEP_S / 2 ? this.speed * 0.8 : this.speed;
    }
  }

  label() {
    this.button.firstChild.textContent = t(this.playing ? "clips.pause" : "clips.play");
  }
}
