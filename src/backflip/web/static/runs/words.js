// How runs and alarms are put into words.

import { ago, count, known, language, t } from "../lib/i18n.js";
import { duration, number } from "../lib/scale.js";

const clock = new Intl.DateTimeFormat(language, { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** What a metric is called: in the reader's language where it has a name there, else as it is logged. */
export const metric = (name) => (known(`runs.metric.${name}`) ? t(`runs.metric.${name}`) : name);

/** Whether a running run has said nothing for longer than it usually does. */
export const isSilent = (card, now) => card.silent_after !== null && now - card.last_write > card.silent_after;

/** How a run stands, as the name of a colour and in a word. */
export function stateOf(card, now) {
  if (isSilent(card, now)) return ["silent", t("runs.silent", { time: clock.format(new Date(card.last_write * 1000)) })];
  return [card.state, t(`runs.state.${card.state}`)];
}

const three = (x) => number(Number(x.toPrecision(3)));

/** Step, speed and reward. */
export function figures(card, now) {
  const parts = [];
  if (card.step !== null) parts.push(card.steps ? t("runs.stepsof", { n: count(card.step), total: count(card.steps) }) : t("runs.steps", { n: count(card.step) }));
  if (card.steps_per_second && card.state === "running") parts.push(t("runs.speed", { n: three(card.steps_per_second) }));
  if (card.reward !== null) parts.push(t("runs.reward", { n: three(card.reward) }));
  return parts;
}

/** How long ago a run wrote last; nothing of one that writes. */
export const age = (card, now) => (card.last_write !== null && (card.state !== "running" || isSilent(card, now)) ? ago(Math.max(0, now - card.last_write)) : "");

const percent = (x) => `${number(Math.round(1000 * x) / 10)} %`;

/** What an alarm is called, and the sentence that says why; one of a kind we have no words for speaks for itself. */
export function alarmWords(alarm) {
  const key = `runs.alarm.${alarm.kind}`;
  if (!known(key)) return [alarm.kind, alarm.sentence];
  const [variant, values] = evidenceOf(alarm);
  const sentence = `${key}.${variant}`;
  return [t(key), known(sentence) ? t(sentence, values) : alarm.sentence];
}

function evidenceOf({ kind, step, evidence }) {
  const [[name, first], second] = [Object.entries(evidence)[0] ?? ["", {}], Object.entries(evidence)[1]];
  const plain = Object.fromEntries(Object.entries(first).map(([what, x]) => [what.replace("at first", "first"), number(x)]));
  const shares = Object.fromEntries(Object.entries(first).map(([what, x]) => [what.replace("at first", "first"), percent(x)]));
  switch (kind) {
    case "overoptimised": {
      const [watched, numbers] = second ?? ["", {}];
      return [numbers.high < 0 ? "falls" : "flat", { gain: number(first.change), watched: metric(watched), change: number(numbers.change), low: number(numbers.low), high: number(numbers.high) }];
    }
    case "kl-budget": return ["more", { ...plain, times: number(Number((first.mean / first.target).toPrecision(2))) }];
    case "length": return [first.mean > first["at first"] ? "longer" : "shorter", plain];
    case "unfinished": case "repetition": case "equal-groups": case "clipping": return ["more", shares];
    case "ratio": return [first.least === undefined ? "mean" : "most", plain];
    case "reward-outliers": return [name === "samples" ? "samples" : "jump", { ...plain, share: percent(first.share ?? 0) }];
    case "not-finite": return ["more", { names: Object.keys(evidence).map(metric).join(", "), step }];
    case "silent": return ["more", { seconds: duration(first.seconds), usual: duration(first.usual) }];
    default: return ["more", plain];
  }
}
